//! What is measured of a machine and of programs: clocks, rounds, rates. Knows no kinds, and says nothing to people.

pub mod hardware;
