//! The commands as a user types them, on real servers in a folder of this test's own.
mod servers;
