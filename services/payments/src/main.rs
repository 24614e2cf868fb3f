//! The payments service: runs until a signal. `--openapi` and `--operator-openapi` print its documents instead.

use waybill_host::Program;
use waybill_payments::{config, http, service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Program { name: service::NAME, openapi: http::document, read: config::read }.run(service::run).await
}
