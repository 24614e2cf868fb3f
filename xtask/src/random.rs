//! Random bytes for keys, ids and nonces, from the kernel.

/// So many bytes nobody can guess.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes
}

/// So many bytes in hexadecimal, for a name of its own.
pub(crate) fn hex<const N: usize>() -> String {
    bytes::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}
