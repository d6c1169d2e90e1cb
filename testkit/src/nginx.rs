//! A real nginx, to compare with.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
};

use crate::{Child, READY_WITHIN, start_on_free_port};

/// A running nginx with one worker, without logs.
#[derive(Debug)]
pub struct Nginx {
    _child: Child,
    port: u16,
}

impl Nginx {
    /// Starts one whose `http` block has these directives and one server with those, and waits until it accepts.
    ///
    /// # Panics
    /// When `nginx` is missing or refuses the configuration; the message says which.
    #[must_use]
    pub fn start(http: &str, server: &str) -> Self {
        let (child, port) = start_on_free_port(|port| {
            let folder = tempfile::tempdir().map_err(|problem| problem.to_string())?;
            let root = folder.path().display();
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|module| format!("{module}_temp_path {root}/{module};"))
                .concat();
            let text = format!(
                "worker_processes 1; daemon off; pid {root}/pid; error_log stderr;\nevents {{}}\n\
                 http {{\naccess_log off; {temporary}\n{http}\n\
                 server {{ listen 127.0.0.1:{port};\n{server}\n}}\n}}\n"
            );
            let config = folder.path().join("nginx.conf");
            std::fs::write(&config, text).map_err(|problem| problem.to_string())?;
            let mut nginx = Command::new("nginx");
            nginx.arg("-p").arg(folder.path()).arg("-c").arg(&config);
            let accepts = move |_: &Child| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            Child::start(nginx, folder, "KILL", "nginx")?.ready(READY_WITHIN, accepts)
        });
        Self { _child: child, port }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}
