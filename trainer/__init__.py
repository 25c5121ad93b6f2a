"""Train a pair of CycleGAN generators on two folders of photos, and judge and export them.

    photos -> crops -> step -> checkpoint -> model files
    two folders       one optimisation step   what `engine` serves

The engine never imports this package; this package uses the engine's own pixels, model and file format, so
that what is trained and scored is what is served.
"""
