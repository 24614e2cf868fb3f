//! A listener on a free port, serving a router as a service does, until the test ends.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use waybill_http::serve::{Limits, serve};
use waybill_runtime::lifecycle::Shutdown;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Server {
        Self::start_with(router, Limits::default()).await
    }

    pub(crate) async fn start_with(router: Router, limits: Limits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::manual();
        let serving = tokio::spawn(serve(listener, router, shutdown.clone(), limits));
        Server { address, shutdown, serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Longer than anything a passing test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
