//! `http.request`: calls an HTTP address.
//!
//! Whoever may submit tasks makes this process send requests, so addresses that only this process can reach (loopback, private
//! and link-local ranges, cloud metadata) are refused unless the settings allow them. The address that was checked is the one
//! that is called, and redirects are not followed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use oxcart_sdk::{TaskContext, TaskError, TaskResult};
use reqwest::{Client, Method, Url, redirect::Policy};
use serde::{Deserialize, Serialize};

/// What `http.request` may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The handler is there.
    pub enabled: bool,
    /// Loopback, private, link-local and other special ranges may be called.
    pub allow_private: bool,
    /// Only these hosts may be called; all when empty.
    pub allow_hosts: Vec<String>,
    /// Bytes of a response body at most; a longer one is a failure that is not retried.
    pub max_response_bytes: usize,
    /// Time of a request that names none.
    #[serde(with = "oxcart_service::config::duration")]
    pub timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow_private: false,
            allow_hosts: Vec::new(),
            max_response_bytes: 128 * 1024,
            timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// GET when not set.
    #[serde(default)]
    method: Option<String>,
    /// `http` or `https`.
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Body as text.
    #[serde(default)]
    body: Option<String>,
    /// Time for the whole exchange.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Output {
    status: u16,
    headers: BTreeMap<String, String>,
    /// Body; bytes that are no UTF-8 are replaced.
    body: String,
}

pub(super) struct Http {
    config: HttpConfig,
}

impl Http {
    pub(super) fn new(config: HttpConfig) -> Self {
        // One for the process; when somebody installed one before, that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { config }
    }

    /// Returns status, headers and body of a 2xx or 3xx. 4xx is a failure that is not retried, but for 408 and 429; 5xx is one
    /// that is.
    pub(super) async fn run(&self, ctx: TaskContext, input: Input) -> TaskResult<Output> {
        ctx.or_cancelled(self.exchange(input)).await?
    }

    async fn exchange(&self, input: Input) -> TaskResult<Output> {
        let invalid = |what: String| TaskError::fatal(what).kind(oxcart_types::FailureKind::INVALID_PAYLOAD);
        let url: Url = input.url.parse().map_err(|error| invalid(format!("url: {error}")))?;
        let method = input.method.as_deref().unwrap_or("GET");
        let method: Method = method.parse().map_err(|_| invalid(format!("{method:?} is no method")))?;
        let client = self.client_for(&url).await?;
        let timeout = input.timeout_ms.map_or(self.config.timeout, Duration::from_millis);
        let mut request = client.request(method, url).timeout(timeout);
        for (name, value) in &input.headers {
            request = request.header(name, value);
        }
        let request = request.body(input.body.unwrap_or_default()).build().map_err(|error| invalid(error.to_string()))?;
        let mut response = client.execute(request).await?;
        let status = response.status();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.config.max_response_bytes {
                let limit = self.config.max_response_bytes;
                return Err(TaskError::fatal(format!("the response has more than {limit} bytes")).kind("ResponseTooLarge"));
            }
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_client_error() || status.is_server_error() {
            let message = format!("the server answered {status}");
            let retried = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            let error = if retried { TaskError::retryable(message) } else { TaskError::fatal(message) };
            return Err(error.kind(format!("Http{}", status.as_u16())).detail(body));
        }
        Ok(Output { status: status.as_u16(), headers, body })
    }

    /// A client that reaches the host of the address, and only at the addresses that were checked.
    async fn client_for(&self, url: &Url) -> TaskResult<Client> {
        let refused = |what: String| TaskError::fatal(what).kind("AddressNotAllowed");
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(format!("{} is neither http nor https", url.scheme())));
        }
        let host = url.host_str().ok_or_else(|| refused("the address has no host".to_owned()))?;
        if !self.config.allow_hosts.is_empty() && !self.config.allow_hosts.iter().any(|allowed| allowed == host) {
            return Err(refused(format!("{host} is not among the allowed hosts")));
        }
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(80);
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name, port)).await?.collect();
        if !self.config.allow_private
            && let Some(address) = addresses.iter().find(|address| is_special(address.ip()))
        {
            return Err(refused(format!("{host} is at {}, which is not a public address", address.ip())));
        }
        Ok(Client::builder().redirect(Policy::none()).no_proxy().resolve_to_addrs(name, &addresses).build()?)
    }
}

/// Addresses that are not public: what a stranger must not reach through this process.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn serve(response: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            stream.write_all(response.as_bytes()).await.expect("an answer");
        });
        address
    }

    async fn get(config: HttpConfig, url: String) -> Result<String, String> {
        let input = Input { method: None, url, headers: BTreeMap::new(), body: None, timeout_ms: Some(5000) };
        let output = Http::new(config).run(TaskContext::detached().0, input).await;
        output.map(|output| output.body).map_err(|error| format!("{} {:?}", error.kind_str(), error.class()))
    }

    #[tokio::test]
    async fn answers_become_results_and_failures() {
        let config = HttpConfig { allow_private: true, max_response_bytes: 10, ..HttpConfig::default() };
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Ok("hi")),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Err("Http404 Fatal")),
            ("HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n", Err("Http429 Retryable")),
            ("HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n", Err("Http503 Retryable")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901", Err("ResponseTooLarge Fatal")),
            ("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n", Ok("")),
        ];
        for (response, expected) in table {
            let address = serve(response).await;
            let found = get(config.clone(), format!("http://{address}/")).await;
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{response}");
        }
    }

    #[tokio::test]
    async fn private_addresses_and_other_schemes_are_refused() {
        for url in [
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://localhost/",
            "http://169.254.169.254/",
            "http://[::ffff:10.0.0.1]/",
            "ftp://example.com/",
        ] {
            assert_eq!(get(HttpConfig::default(), url.to_owned()).await, Err("AddressNotAllowed Fatal".to_owned()), "{url}");
        }
        let one = HttpConfig { allow_hosts: vec!["example.com".to_owned()], allow_private: true, ..HttpConfig::default() };
        assert_eq!(get(one, "http://127.0.0.1:1/".to_owned()).await, Err("AddressNotAllowed Fatal".to_owned()));
    }
}
