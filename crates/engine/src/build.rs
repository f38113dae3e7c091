//! Building images: the engine's part is to run `RUN` steps as containers.
