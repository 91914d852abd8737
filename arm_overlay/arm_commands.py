"""The application of ``lincei arm``; imported when it is run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arm_overlay.settings import ArmOptions, arm_options
from lincei.command import new_application, options_command, stoppable
from lincei.errors import LinceiError, UsageError
from lincei.image import put_in_place, replacing, writable_errors
from lincei.progress import CancelCheck

if TYPE_CHECKING:
    from arm_overlay.cameras import Camera
    from arm_overlay.developing import Developing
    from arm_overlay.displays import Microdisplay
    from arm_overlay.frames import Frame
    from arm_overlay.loop import Loop

_STOPPED = 130
_STATUS_EVERY_S = 10.0
# Averaged, an empty field shows its evenness and not its noise.
_EMPTY_FIELD_FRAMES = 16
_FRAME_LIMIT_S = 5.0

_CAMERA = typer.Option(help="The camera; `lincei arm cameras` lists those there are.", show_default=False)
_OBJECTIVE = typer.Option(help="The objective in the light path, such as 20x.")
_EXPOSURE = typer.Option(help="Exposure time to set; the camera's own when left out.", metavar="ms")


def arm_app() -> typer.Typer:
    """Return the application of ``lincei arm``: it runs by itself, and has commands of its own."""
    application = new_application()
    (running,) = options_command(ArmOptions, arm).registered_commands
    assert running.callback is not None
    application.callback(invoke_without_command=True, help=running.help)(running.callback)
    application.command("align")(align_command)
    application.command("cameras")(cameras_command)
    application.command("displays")(displays_command)
    application.command("empty-field")(empty_field_command)
    return application


def arm(
    context: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="Settings file (TOML); flags win over it.", metavar="FILE.toml", show_default=False
        ),
    ] = None,
    *,
    options: ArmOptions,
    cancelled: CancelCheck,
) -> int:
    """Show tumor outlines live in the microscope: camera in, microdisplay out. Research use only.

    Runs until the window is closed, Ctrl-C, or --seconds. See also its commands, each with its own --help.
    """
    flags = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if _was_given(context, field.name)
    }
    if context.invoked_subcommand is not None:
        if flags or settings is not None:
            raise UsageError(
                f"flags stand before {context.invoked_subcommand!r}",
                "lincei arm",
                f"Write them after it: lincei arm {context.invoked_subcommand} --camera ...",
            )
        return 0
    return run_arm(arm_options(settings, flags), cancelled=cancelled)


def run_arm(options: ArmOptions, *, cancelled: CancelCheck) -> int:
    """Run the microscope until it is stopped; what ``lincei arm`` does.

    Parameters
    ----------
    options : ArmOptions
        What the command line and the settings file say.
    cancelled : callable
        Turns true when the user asks to stop.

    Returns
    -------
    int
        The exit status: 0, or 130 when it was stopped before ``options.seconds``.

    Raises
    ------
    LinceiError
        When camera, display, model or a folder cannot be used.
    """
    from arm_overlay.recording import RESEARCH_USE_ONLY

    _say(f"{RESEARCH_USE_ONLY} Not for diagnosis.")
    with_window = _check(options)
    with contextlib.ExitStack() as stack:
        parts = stack.enter_context(assembled(options, tell=_say))
        stats = Path(options.stats).expanduser() if options.stats else None
        if stats is not None:
            _write_json(stats, {"running": True})  # a file that cannot be written is told now
        loop = parts.loop
        ended = stack.enter_context(_Ending(loop, options.seconds, cancelled))
        try:
            loop.start(cancelled=ended.asked)
            if options.record:
                loop.start_recording()
            if with_window:
                _run_window(loop, parts.colors, options, ended)
            else:
                _run_without_window(loop, ended)
        finally:
            loop.stop()
            if stats is not None:
                _write_json(stats, loop.statistics())
    if stats is not None:
        print(stats)
    return _STOPPED if ended.early else 0


@dataclasses.dataclass(frozen=True)
class Assembled:
    """The parts of an augmented-reality microscope that a window needs.

    Parameters
    ----------
    loop : Loop
        Not started.
    colors : Colors
        White balance and flat field of the objective in use.
    """

    loop: Loop
    colors: Colors


@contextlib.contextmanager
def assembled(options: ArmOptions, *, tell: Callable[[str], object]) -> Iterator[Assembled]:
    """Put together all from the camera to the microdisplay as options say; it is stopped at the end.

    Parameters
    ----------
    options : ArmOptions
        What is used, and how; the camera is opened when the loop is started.
    tell : callable
        Takes sentences that the user should read, from any thread.

    Raises
    ------
    LinceiError
        When display, model or a file cannot be used.
    """
    from arm_overlay.live import LiveOutline
    from arm_overlay.loop import Loop
    from arm_overlay.recording import Records

    colors = Colors(options, tell)
    with contextlib.ExitStack() as stack:
        # In a recording each frame shown waits for its own answer (frames due meanwhile are passed over); a
        # live view does not wait for a slow network.
        patience = {"patience_s": math.inf} if options.camera.startswith("replay:") else {}
        live = stack.enter_context(LiveOutline(options.live(), developing=colors.developing, **patience))
        display = _open_display(options, tell)
        if display is not None:
            stack.callback(display.close)
        records = Records(
            options.record or options.records or _records_folder(),
            colors.developed,
            settings={"options": _told(options), "model_hash": _model_hash(options.model)},
            record_format=options.record_format,
            save_empty_field=colors.save,
        )
        loop = Loop(
            lambda: _new_camera(options),
            live,
            display,
            prepare=lambda camera: _set_up(camera, options.exposure_ms, options.gain),
            alignment=_alignment(display),
            model=options.model,
            mode=options.mode,
            threshold=options.threshold,
            objective=options.objective,
            brightness=options.brightness,
            records=records,
        )
        stack.callback(loop.stop)
        loop.add_listener(lambda _, overlay: colors.follow(overlay.objective, live.set_developing))
        yield Assembled(loop, colors)


def objectives_for(options: ArmOptions) -> tuple[str, ...]:
    """Return the objectives to choose from: those of the model, and the one that is set."""
    from arm_overlay.objectives import OBJECTIVES, on_turret
    from arm_overlay.tumor_model import TumorModel

    return on_turret([*(TumorModel.open(options.model).objectives or OBJECTIVES), options.objective])


def align_command(
    camera: Annotated[str, _CAMERA],
    display: Annotated[
        str,
        typer.Option(
            help="The microdisplay; `lincei arm displays` lists those there are.", show_default=False
        ),
    ],
    objective: Annotated[str, _OBJECTIVE],
    method: Annotated[
        str,
        typer.Option(
            help="automatic: the camera sees the display; landmarks: you move a cross onto places of the "
            "slide; manual: with the arrow keys.",
            metavar="automatic|landmarks|manual",
        ),
    ] = "automatic",
    check: Annotated[
        bool, typer.Option("--check", help="Say how far off the stored alignment is now.")
    ] = False,
    start_from: Annotated[
        str, typer.Option(help="Begin with the alignment of this other objective.", metavar="objective")
    ] = "",
    scale: Annotated[
        float, typer.Option(help="With --start-from: how much larger the image is on the display.")
    ] = 1.0,
    exposure_ms: Annotated[float | None, _EXPOSURE] = None,
) -> int:
    """Align camera and microdisplay, for one objective.

    Exit status 1 when the alignment is stored or checked, but not good enough to be used as it is.
    """
    from arm_overlay.aligning import run_align
    from lincei.command import console_progress

    with stoppable() as cancelled, console_progress() as progress:
        aligned = run_align(
            camera,
            display,
            objective,
            method,
            check=check,
            start_from=start_from,
            scale=scale,
            exposure_ms=exposure_ms,
            progress=progress,
            cancelled=cancelled,
        )
    print(aligned.sentence)
    return 0 if aligned.good else 1


def cameras_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the cameras that can be opened, and the kinds that cannot be looked for, with the reason."""
    from arm_overlay.cameras import list_cameras

    cameras, problems = list_cameras()
    if as_json:
        print(
            json.dumps({"cameras": [dataclasses.asdict(c) for c in cameras], "problems": problems}, indent=1)
        )
        return
    width = max((len(camera.spec) for camera in cameras), default=0)
    for camera in cameras:
        print(f"{camera.spec:<{width}}  {camera.name}")
    if not cameras:
        print("No camera was found. simulated (a slide that moves by itself) and file:PATH always work.")
    for problem in problems:
        _say(f"not looked for: {problem}")


def displays_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the monitors; any but the operator's own can be the microdisplay."""
    from arm_overlay.displays import list_monitors

    monitors = list_monitors()
    if as_json:
        print(json.dumps([dataclasses.asdict(monitor) for monitor in monitors], indent=1))
        return
    for monitor in monitors:
        print(monitor.text)


def empty_field_command(
    camera: Annotated[str, _CAMERA],
    objective: Annotated[str, _OBJECTIVE] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write (.npz); when left out, `lincei arm` finds it for this camera and objective.",
            show_default=False,
        ),
    ] = None,
    exposure_ms: Annotated[float | None, _EXPOSURE] = None,
    gain: Annotated[float | None, typer.Option(help="Gain to set; the camera's own when left out.")] = None,
) -> None:
    """Take white balance and flat field from empty glass: move the slide aside, then run this."""
    from arm_overlay.cameras import new_camera
    from arm_overlay.developing import flat_field_of, white_balance_of, write_developing
    from arm_overlay.display_alignment import objective_name

    objective = objective_name(objective) if objective else ""
    with stoppable() as cancelled, new_camera(camera) as device:
        _set_up(device, exposure_ms, gain)
        frame = _averaged(device, cancelled)
    developing = flat_field_of(frame, white_balance_of(frame))
    path = out or empty_field_file(camera, objective)
    with writable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # NumPy adds its suffix to any other name.
        temporary = path.with_name(f".{path.stem}.part.npz")
        write_developing(temporary, developing)
        put_in_place(temporary, path)
    red, green, blue = developing.white_balance
    flat = developing.flat_field
    assert flat is not None
    _say(
        f"White balance: red {red:.2f}, green {green:.2f}, blue {blue:.2f}. "
        f"The darkest place of the field is {100 / float(flat.max()):.0f} % as bright as its mean."
    )
    print(path)


def empty_field_file(camera: str, objective: str) -> Path:
    """Return where the empty field of a camera and an objective is stored."""
    from arm_overlay.cameras import without_password
    from arm_overlay.display_alignment import arm_folder

    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{without_password(camera)} {objective}").strip("-")
    return arm_folder() / "empty_fields" / f"{slug}.npz"


class Colors:
    """White balance and flat field of the objective in use.

    Parameters
    ----------
    options : ArmOptions
        Which camera, objective and empty field.
    tell : callable
        Takes sentences that the user should read.
    """

    def __init__(self, options: ArmOptions, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._camera, self._objective = options.camera, options.objective
        # What was recorded or named is used throughout; what was stored goes with the objective.
        self._follows = not options.empty_field and not options.camera.startswith("replay:")
        self._path = _empty_field_of(options.camera, options.objective)
        self.developing = _developing(options, tell)

    def developed(self, frame: Frame) -> Any:
        """Return a frame in balanced color: shape (Y, X, 3), uint8."""
        from arm_overlay.developing import developed

        return developed(frame, self.developing)

    def save(self, path: Path) -> None:
        """Write white balance and flat field."""
        from arm_overlay.developing import write_developing

        write_developing(path, self.developing)

    def follow(self, objective: str, use: Callable[[Developing], object]) -> None:
        """Use the empty field of another objective; without one, only the white balance goes on.

        How light falls off toward the border differs between objectives: another's flat field would darken or
        brighten tissue.
        """
        from arm_overlay.developing import read_developing

        if not self._follows or not objective or objective == self._objective:
            return
        self._objective = objective
        before, self._path = self._path, _empty_field_of(self._camera, objective)
        if self._path == before:
            return
        problem = f"no empty field was taken for {objective}"
        if self._path is not None:
            try:
                self.developing = read_developing(self._path)
                problem = ""
            except LinceiError as error:
                problem = str(error)
        if problem:
            self.developing = dataclasses.replace(self.developing, flat_field=None)
            self._tell(
                f"Colors are balanced as before, and the light of {objective} is not evened: {problem}"
            )
        use(self.developing)


class _Ending:
    """Whether the run is over: stopped by the user or the system, out of time, or at the film's end."""

    def __init__(self, loop: Loop, seconds: float | None, cancelled: CancelCheck) -> None:
        self._loop = loop
        self._seconds = seconds
        self._cancelled = cancelled
        self._terminated = threading.Event()
        self._began_s: float | None = None
        self._before: Any = None
        self.early = False

    def __enter__(self) -> _Ending:
        if threading.current_thread() is threading.main_thread():
            # How systems end a service: records are to be finished then, too.
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def asked(self) -> bool:
        """Tell whether the user or the system asks to stop."""
        return self._cancelled() or self._terminated.is_set()

    def __call__(self) -> bool:
        if self.asked():
            # Without an agreed time, stopping is how it is meant to end.
            self.early = self._seconds is not None
            return True
        # The time begins when the camera is open.
        self._began_s = self._began_s or time.monotonic()
        elapsed_s = time.monotonic() - self._began_s
        return self._loop.finished or (self._seconds is not None and elapsed_s >= self._seconds)


def _run_without_window(loop: Loop, ended: Callable[[], bool]) -> None:
    """Wait for the end, and tell on the console what happens meanwhile."""
    told, status_s = 0, time.monotonic()
    while not ended():
        loop.wait(0.1)
        status = loop.status()
        for event in status.events:
            if event.number >= told:
                told = event.number + 1
                _say(f"{event.source}: {event.text}")
        if time.monotonic() - status_s >= _STATUS_EVERY_S:
            status_s = time.monotonic()
            latency = status.latency_ms.get("p95")
            parts = [f"{status.fps_out:.1f} frames a second", f"{status.dropped} dropped"]
            parts += [f"latency {latency:.0f} ms (95 %)"] if latency is not None else []
            parts += [status.objective or "objective unknown"]
            parts += [f"nothing shown: {status.blank_reason}"] if status.blank_reason else []
            _say(", ".join(parts))


def _run_window(loop: Loop, colors: Colors, options: ArmOptions, ended: Callable[[], bool]) -> None:
    """Show the operator's window until it is closed or the run is over."""
    from PySide6.QtCore import QTimer

    from arm_overlay.live_view import application
    from arm_overlay.operator_window import OperatorWindow

    program = application()
    window = OperatorWindow(loop, colors.developing, objectives=objectives_for(options))
    window.show()

    def look() -> None:
        window.developing = colors.developing
        if ended():
            program.quit()

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(100)
    program.exec()
    timer.stop()


def _check(options: ArmOptions) -> bool:
    """Refuse what cannot work, before anything is opened; return whether there is to be a window."""
    from arm_overlay.cameras import new_camera

    if not options.camera:
        raise UsageError(
            "no camera was named",
            "--camera",
            "Name one, here or in a settings file; `lincei arm cameras` lists those there are.",
        )
    new_camera(options.camera)
    with_window = options.window and _has_screen()
    if options.window and not with_window:
        _say("There is no screen for the operator's window; running without it.")
    if with_window and importlib.util.find_spec("PySide6") is None:
        _say("The operator's window needs Qt: pip install 'lincei[arm]'. Running without it.")
        with_window = False
    if with_window and options.engine == "tensorflow":
        raise UsageError(
            "TensorFlow cannot run in a program with a window",
            "--engine tensorflow",
            "Leave --engine out, or add --no-window.",
        )
    return with_window


def _open_display(options: ArmOptions, tell: Callable[[str], object]) -> Microdisplay | None:
    """Open the microdisplay; None for none."""
    if options.display.strip() == "none":
        tell("No microdisplay was named: nothing is shown in the eyepiece. `lincei arm displays` lists them.")
        return None
    from arm_overlay.displays import Microdisplay
    from arm_overlay.rendering import Style

    circle = options.field_of_view
    style = Style(
        line_width_px=options.line_width_px,
        field_of_view=(circle[0], circle[1], circle[2]) if circle else None,
    )
    return Microdisplay(options.display, style=style)


def _alignment(display: Microdisplay | None) -> Callable[[str, tuple[int, int]], Any] | None:
    """Return what the loop asks for alignments; None where there is no display."""
    if display is None:
        return None
    from arm_overlay.display_alignment import alignments_for

    return alignments_for(display.monitor)


def _new_camera(options: ArmOptions) -> Camera:
    from arm_overlay.cameras import new_camera

    return new_camera(options.camera)


def _set_up(camera: Camera, exposure_ms: float | None, gain: float | None) -> None:
    """Set what the user asked for."""
    if exposure_ms is not None:
        camera.set_exposure_ms(exposure_ms)
    if gain is not None:
        camera.set_gain(gain)


def _developing(options: ArmOptions, tell: Callable[[str], object]) -> Developing:
    """Return white balance and flat field for a camera and objective."""
    from arm_overlay.developing import NEUTRAL, read_developing

    if options.empty_field:
        return read_developing(Path(options.empty_field).expanduser())
    kind, _, rest = options.camera.partition(":")
    if kind == "replay":
        from arm_overlay.cameras.replay import recorded_empty_field

        developed, path = recorded_empty_field(rest)
        return NEUTRAL if developed or path is None else read_developing(path)
    stored = _empty_field_of(options.camera, options.objective)
    if stored is not None:
        tell(f"Colors are balanced with {stored}.")
        return read_developing(stored)
    tell("Colors are not balanced: no empty field was taken with `lincei arm empty-field` for this camera.")
    return NEUTRAL


def _empty_field_of(camera: str, objective: str) -> Path | None:
    """Return the empty field that was taken for a camera and an objective, or for the camera at all."""
    paths = (empty_field_file(camera, name) for name in (objective, ""))
    return next((path for path in paths if path.is_file()), None)


def _averaged(camera: Camera, cancelled: CancelCheck) -> Frame:
    """Return the mean of some frames as one frame."""
    import numpy as np

    from lincei.progress import stop_if_cancelled

    frames: list[Frame] = []
    while len(frames) < _EMPTY_FIELD_FRAMES:
        stop_if_cancelled(cancelled)
        frame = camera.grab(_FRAME_LIMIT_S)
        if frames and frame.pixels.shape != frames[0].pixels.shape:
            frames.clear()
        frames.append(frame)
    mean = np.mean([frame.pixels for frame in frames], axis=0)
    return dataclasses.replace(frames[-1], pixels=np.rint(mean).astype(frames[-1].pixels.dtype))


def _told(options: ArmOptions) -> dict[str, Any]:
    """Return the options as records keep them: without a camera's password."""
    from arm_overlay.cameras import without_password

    return {**options.to_json(), "camera": without_password(options.camera)}


def _model_hash(model: str) -> str:
    from arm_overlay.tumor_model import TumorModel

    return TumorModel.open(model).model.hash


def _records_folder() -> Path:
    import platformdirs

    return platformdirs.user_documents_path() / "lincei arm"


def _has_screen() -> bool:
    # Windows and macOS have one whenever somebody is logged in.
    return (
        os.name == "nt" or sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
    )


def _was_given(context: typer.Context, name: str) -> bool:
    """Tell whether a flag stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    """Print a line for the user; stdout stays free for what was made."""
    print(line, file=sys.stderr, flush=True)
