//! Architectures, one file each, written once against the tensor interface.
