//! The orders service: runs until a signal. `--openapi` and `--operator-openapi` print its documents instead.

use waybill_host::Program;
use waybill_orders::config::Config;
use waybill_orders::{http, service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Program { name: service::NAME, openapi: http::document, read: Config::read }.run(service::run).await
}
