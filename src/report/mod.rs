//! Measurements to pictures, tables and pages; never measures.
