//! Addresses of the services.

use std::{net::SocketAddr, time::Duration};

use oxcart_service::config::{AddressList, duration};
use serde::{Deserialize, Serialize};

/// Addresses, and how a process stops.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where `oxcart serve submission` listens.
    pub submission: ListenConfig,
    /// Where `oxcart serve dispatcher` listens.
    pub dispatcher: ListenConfig,
    /// Where `oxcart serve worker` listens.
    pub worker: ListenConfig,
    /// Where `oxcart serve monitor` listens.
    pub monitor: ListenConfig,
    /// Where the other services reach the dispatcher: `http://host:port`, one or several. Names are resolved again while they
    /// run.
    pub dispatcher_addresses: AddressList,
    /// Time for a process to finish what it has after it was asked to stop.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Liveness, readiness and metrics over HTTP.
    pub admin: SocketAddr,
}

impl ListenConfig {
    const fn local(grpc: u16, admin: u16) -> Self {
        const fn local(port: u16) -> SocketAddr {
            SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
        }
        Self { grpc: local(grpc), admin: local(admin) }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            submission: ListenConfig::local(7600, 7650),
            dispatcher: ListenConfig::local(7601, 7651),
            worker: ListenConfig::local(7602, 7652),
            monitor: ListenConfig::local(7603, 7653),
            dispatcher_addresses: AddressList::from_iter(["http://127.0.0.1:7601".to_owned()]),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
