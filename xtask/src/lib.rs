//! The project's commands, one module per job. Nothing here links librdkafka, so that this program compiles in
//! seconds and can say what is missing before the long build begins.

pub mod cli;
pub mod say;

// commands
mod bench;
mod chaos;
mod ctl;
mod demo;
mod down;
mod environment;
mod lint;
mod logs;
mod status;
mod test;
mod tools;
mod up;

// what commands stand on
mod account;
mod arguments;
mod binaries;
mod http;
mod instance;
mod keys;
mod launch;
mod layout;
mod ports;
mod prerequisites;
mod process;
mod promtool;
mod random;
mod run;
mod servers;
mod services;
mod state;
mod stop;
mod supervisor;
mod token;
