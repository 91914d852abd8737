"""lincei in napari: widgets, readers and sample data, named in ``napari.yaml``.

Nothing here imports TensorFlow: with an OpenGL canvas in the same process it crashes. What needs it runs in
a worker process (`lincei.worker_process`).
"""
