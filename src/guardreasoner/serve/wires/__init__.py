"""Wire formats, one file each, found by file name: a new API is a new module here, and its page in `docs/wires/`.

A module has

    FIELDS            a `serve.fields.FieldTable`: every field of a request, what it may hold, and what becomes of it
    router(service)   a FastAPI router: body in, `Exchange` to `service.judge`, `Verdict` back, reply out

The file's name is the name of the route in a policy (`routes: {nemo: ...}`) and in metrics. `nemo.py` is a short
example.
"""
