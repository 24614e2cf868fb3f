//! Tells cargo that the migrations are part of the crate, so that a new file is compiled in.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
