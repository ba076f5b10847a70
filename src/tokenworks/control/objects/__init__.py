"""Where bytes of any size are kept: files, inputs and outputs of batches. Two places, one interface."""
