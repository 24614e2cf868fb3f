//! Pure rules: no time, no database, no provider.

pub mod obey;
pub mod outcome;
pub mod payment;

#[cfg(test)]
mod tests;
