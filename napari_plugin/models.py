"""The models at hand: what each one is for and how good it is; install, test and remove them."""

from __future__ import annotations

import importlib.util
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QByteArray, Qt, QUrl
from qtpy.QtGui import QPixmap, QTextCursor, QTextDocument
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTabWidget,
    QTextBrowser,
    QWidget,
)

from lincei.errors import LinceiError
from lincei.options import ENGINE_NAMES
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from napari_plugin.panel import Panel
from napari_plugin.repetition import Repetition
from napari_plugin.tables import FigureTable
from napari_plugin.trainings import TRAININGS

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from lincei.model import Model
    from lincei.model_check import CheckReport

TASKS = {"label": "predicts fluorescence", "focus": "rates focus", "tumor": "outlines tumor"}
# TensorFlow in one process with an OpenGL canvas crashes: that engine is left to the command line.
_ENGINES = tuple(name for name in ENGINE_NAMES if name != "tensorflow")
_COVER_HEIGHT_PX = 150
_LIST_HEIGHT_PX = 190
_MISUSE = (
    "**Research use only**, not for diagnosis. The figures below were measured on few images, named there. "
    "On other cells, stains, objectives or cameras the model may be wrong without looking wrong: compare it "
    "with images of your own before you rely on it."
)


@dataclass(frozen=True)
class _Tested:
    """What a test of a model found, by the engine's name."""

    model: Model
    reports: dict[str, CheckReport]


class Models(Panel):
    """Lists models, shows their cards, installs, tests and removes them."""

    TITLE = "Models"
    HELP = "What is installed, what each model is for, and how good it is on data that it never saw."
    PAGE = "docs/napari.md"
    RUN = "Test"
    RUN_TIP = "Run the image that the model brings, and compare the answer with the one that it should give."

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self._models: list[Model] = []
        self._broken: list[tuple[Path, str]] = []
        self._repetition: Repetition | None = None

        self.list = FigureTable(("Name", "What it does"))
        self.list.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.list.horizontalHeader().setStretchLastSection(True)
        self.list.setFixedHeight(_LIST_HEIGHT_PX)
        self.list.setToolTip("Choose a model to see its card. Those you trained or installed come first.")
        self.list.itemSelectionChanged.connect(self._show_chosen)
        self.form.addRow(self.list)

        self.install_file = QPushButton("Install file ...")
        self.install_file.setToolTip(
            "Install a model from a zip archive (BioImage.IO) that somebody gave you."
        )
        self.install_file.clicked.connect(self._ask_for_file)
        self.install_folder = QPushButton("Install folder ...")
        self.install_folder.setToolTip(
            "Install a model from a folder with an rdf.yaml, such as one you trained."
        )
        self.install_folder.clicked.connect(self._ask_for_folder)
        self.remove_button = QPushButton("Remove ...")
        self.remove_button.setToolTip(
            "Delete the chosen model from this computer; those that came with lincei stay."
        )
        self.remove_button.clicked.connect(self._ask_to_remove)
        row = QHBoxLayout()
        for button in (self.install_file, self.install_folder):
            row.addWidget(button)
        self.form.addRow(row)
        self.replace = QCheckBox("Replace one of the same name")
        self.replace.setToolTip(
            "When what is installed has the name of a model that is there, take its place."
        )
        self.form.addRow(self.replace)
        self.form.addRow(self.remove_button)

        self.cover = QLabel()
        self.cover.setToolTip("What the model does with an image: a picture from its training.")
        self.cover.setAlignment(Qt.AlignmentFlag.AlignLeft)
        self.card = _Card()
        self.card.setToolTip("The model's card: what it expects, and what was measured on held-out data.")
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setToolTip("All that the card says, as `lincei models show` prints it.")
        self.pages = QTabWidget()
        self.pages.addTab(self.card, "Card")
        self.pages.addTab(self.details, "Details")
        self.pages.setMinimumHeight(320)
        self.results.addWidget(self.cover)
        self.results.addWidget(self.pages, 1)
        self.resources.connect_signal(TRAININGS.models_changed, self.refresh)
        self.refresh()

    @property
    def chosen(self) -> Model | None:
        """The chosen model; None when nothing, or a broken one, is chosen."""
        row = self.list.currentRow()
        return self._models[row] if 0 <= row < len(self._models) else None

    def refresh(self) -> None:
        """Read the list of models anew; the one that was chosen stays so."""
        from lincei.model import models_and_broken

        row = self.list.currentRow()
        kept = self.list.item(row, 0).text() if row >= 0 else ""
        self._models, broken = models_and_broken()
        self._broken = [(entry.folder, entry.reason) for entry in broken]
        rows = [(model.name, _purpose(model)) for model in self._models]
        rows += [(folder.name, "cannot be used") for folder, _ in self._broken]
        tips = [f"{model.card.description}\n{model.folder}" for model in self._models]
        tips += [f"{reason}\n{folder}" for folder, reason in self._broken]
        self.list.show_rows(rows, tips)
        if rows:
            self.choose(kept if kept in [name for name, _ in rows] else rows[0][0])
        self._show_chosen()

    def choose(self, name: str) -> None:
        """Choose a model of the list."""
        for row in range(self.list.rowCount()):
            if self.list.item(row, 0).text() == name:
                self.list.setCurrentCell(row, 0)
                break

    def run(self) -> None:
        """Test the chosen model on the engines that may run beside a window."""
        model = self._needed()
        name = model.name
        self._repetition = Repetition(
            "from lincei.model import find_model\n"
            "from lincei.model_check import check_model\n\n"
            f"print(check_model(find_model({name!r})).describe())\n",
            shlex.join(["lincei", "models", "check", name]),
        )
        self.run_job(
            lambda progress, cancelled: _test(model, progress, cancelled), self._say_tested, name="test"
        )

    def install(self, source: str | Path) -> None:
        """Install a model from a zip archive or a folder, in the background."""
        path, replace = Path(source), self.replace.isChecked()

        def job(progress: ProgressCallback, _cancelled: CancelCheck) -> Model:
            from lincei.model import install_model

            report(progress, Progress("installing", 0, 0, f"installing {path.name}"))
            return install_model(path, replace=replace)

        python = (
            f"from lincei.model import install_model\n\ninstall_model({str(path)!r}, replace={replace})\n"
        )
        words = ["lincei", "models", "install", str(path), *(["--replace"] if replace else [])]
        self._repetition = Repetition(python, shlex.join(words))
        self.run_job(job, self._say_installed, name="install")

    def remove(self) -> None:
        """Delete the chosen model; the person has been asked."""
        from lincei.model import remove_model

        name = self.list.item(self.list.currentRow(), 0).text() if self.list.currentRow() >= 0 else ""
        if not name:
            raise LinceiError("no model is chosen", self.TITLE, "Choose one in the list.")
        remove_model(name)
        TRAININGS.models_changed.emit()
        self.say(f"{name} was removed.")

    def repetition(self) -> Repetition | None:
        """Return how the last test or installation is done in a script."""
        return self._repetition

    def _needed(self) -> Model:
        model = self.chosen
        if model is None:
            raise LinceiError("no model that can be used is chosen", self.TITLE, "Choose one in the list.")
        return model

    def _show_chosen(self) -> None:
        from lincei.model_card import COVER_FILE

        model, row = self.chosen, self.list.currentRow()
        self.run_button.setEnabled(model is not None and not self.is_busy)
        self.cover.hide()
        if model is None:
            reason = self._broken[row - len(self._models)][1] if row >= len(self._models) else ""
            self.card.show_markdown(
                f"This model cannot be used: {reason}" if reason else "No model is installed."
            )
            self.details.setPlainText("")
            return
        self.card.show_markdown(_markdown(model))
        self.details.setPlainText(f"{model.card.summary()}\n{'Folder:':<22} {model.folder}")
        if COVER_FILE in model.card.files:
            picture = QPixmap(str(model.folder / COVER_FILE))
            if not picture.isNull():
                smooth = Qt.TransformationMode.SmoothTransformation
                self.cover.setPixmap(picture.scaledToHeight(min(_COVER_HEIGHT_PX, picture.height()), smooth))
                self.cover.show()

    def _say_tested(self, tested: _Tested) -> None:
        lines = []
        for engine, found in tested.reports.items():
            state = "passed" if found.passed else "FAILED"
            lines.append(f"{state} on {found.engine or engine}: {found.describe()}.")
        text = f"{tested.model.name}: " + " ".join(lines)
        if all(found.passed for found in tested.reports.values()):
            self.say(f"{text} It answers its test image here as it should.")
        else:
            self.show_error(f"{text} Do not rely on it here; get it again from where it came.")

    def _say_installed(self, model: Model) -> None:
        TRAININGS.models_changed.emit()
        self.choose(model.name)
        self.say(f"{model.name} is installed and can be chosen by its name.")

    def _ask_for_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Install a model", "", "Models (*.zip);;All files (*)")
        if path:
            self.guarded(lambda: self.install(path))

    def _ask_for_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Install a model from a folder")
        if path:
            self.guarded(lambda: self.install(path))

    def _ask_to_remove(self) -> None:
        row = self.list.currentRow()
        if row < 0:
            return
        name = self.list.item(row, 0).text()
        folders = [model.folder for model in self._models] + [folder for folder, _ in self._broken]
        yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
        question = f"Delete the model {name} from this computer?\n\n{folders[row]}"
        if QMessageBox.question(self, "Remove a model", question, yes | no, no) == yes:
            self.guarded(self.remove)

    def _end(self) -> None:
        super()._end()
        self.run_button.setEnabled(self.chosen is not None)


class _Card(QTextBrowser):
    """Markdown of a model's card; nothing that it names is loaded or opened."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setOpenLinks(False)
        self.setOpenExternalLinks(False)

    def loadResource(self, kind: int, url: QUrl) -> Any:  # noqa: N802
        """Return nothing: a card from elsewhere must not read files or addresses."""
        del kind, url
        return QByteArray()

    def show_markdown(self, text: str) -> None:
        """Show a text; HTML in it is shown as text."""
        features = QTextDocument.MarkdownFeature
        self.document().setMarkdown(text, features.MarkdownDialectGitHub | features.MarkdownNoHTML)
        self.document().setDocumentMargin(6)
        self.moveCursor(QTextCursor.MoveOperation.Start)  # it is at the end, and is scrolled to when shown


def _purpose(model: Model) -> str:
    card = model.card
    labels = ", ".join(label.name for label in card.labels)
    what = f"predicts {labels}" if labels and len(labels) < 40 else TASKS.get(card.task, card.task)
    return f"{what} ({' or '.join(card.modalities)})"


def _markdown(model: Model) -> str:
    """Return the card as a person reads it: misuse first, then what the folder's own text says."""
    from lincei.model import default_readme
    from lincei.model_card import README_FILE

    card = model.card
    readme = model.folder / README_FILE
    try:
        text = readme.read_text("utf-8") if README_FILE in card.files else default_readme(card)
    except (OSError, UnicodeDecodeError):
        text = default_readme(card)
    lines = text.strip().splitlines()
    heading = lines[0] if lines and lines[0].startswith("# ") else f"# {card.name}"
    body = "\n".join(lines[1:] if lines and lines[0].startswith("# ") else lines)
    facts = [_MISUSE]
    if not card.finished:
        facts.append("**Unfinished**: its network is not exported yet, so it cannot be used.")
    if card.license and "license" not in text.lower():
        facts.append(f"License: {card.license}.")
    cited = "; ".join(f"{what} (doi:{doi})" if doi else what for what, doi in card.citations)
    return "\n\n".join([heading, *facts, body, f"Cite: {cited}." if cited else ""])


def _test(model: Model, progress: ProgressCallback, cancelled: CancelCheck) -> _Tested:
    """Check a model on each engine that is installed and may run here."""
    from lincei.model_check import check_model

    engines = [name for name in _ENGINES if importlib.util.find_spec(name) is not None]
    if not engines:
        raise LinceiError(
            f"none of {', '.join(_ENGINES)} is installed", f"model {model.name}", "Install lincei again."
        )
    reports = {}
    for done, engine in enumerate(engines):
        stop_if_cancelled(cancelled)
        report(progress, Progress("testing", done, len(engines), f"{model.name} on {engine}"))
        reports[engine] = check_model(model, engine)
    return _Tested(model, reports)
