//! The tensor interface and what stands behind it.

/// The backend of this build, as records name it.
pub const NAME: &str = "candle";
