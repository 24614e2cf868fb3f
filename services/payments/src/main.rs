//! The payments service: runs until a signal. `--openapi` and `--operator-openapi` print its documents instead.

use waybill_host::Program;
use waybill_payments::config::Config;
use waybill_payments::{http, service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Program { name: service::NAME, openapi: http::document, read: Config::read }.run(service::run).await
}
