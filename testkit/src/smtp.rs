//! A mail server that keeps what it gets.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Child, READY_WITHIN, start_on_free_port};

/// A running `aiosmtpd` (RFC 5321); its mails are the files of a Maildir.
#[derive(Debug)]
pub struct Smtp {
    child: Child,
    port: u16,
}

impl Smtp {
    /// Starts one and waits until it greets.
    ///
    /// # Panics
    /// When `aiosmtpd` is missing or does not become ready; the message says which.
    #[must_use]
    pub fn start() -> Self {
        let (child, port) = start_on_free_port(|port| run(port, &[]));
        Self { child, port }
    }

    /// One that refuses every mail for good, as too large (552).
    ///
    /// # Panics
    /// As [`Smtp::start`].
    #[must_use]
    pub fn start_refusing() -> Self {
        let (child, port) = start_on_free_port(|port| run(port, &["--size", "1"]));
        Self { child, port }
    }

    /// One that speaks only TLS, from the first byte (RFC 8314 §3.3), with this certificate and key (PEM).
    ///
    /// # Panics
    /// As [`Smtp::start`].
    #[must_use]
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let files = [certificate, key].map(|file| file.display().to_string());
        let flags = ["--smtpscert", &files[0], "--smtpskey", &files[1]];
        let (child, port) = start_on_free_port(|port| run(port, &flags));
        Self { child, port }
    }

    /// One that takes no mail before STARTTLS (RFC 3207), with this certificate and key (PEM).
    ///
    /// # Panics
    /// As [`Smtp::start`].
    #[must_use]
    pub fn start_starttls(certificate: &Path, key: &Path) -> Self {
        let files = [certificate, key].map(|file| file.display().to_string());
        let flags = ["--tlscert", &files[0], "--tlskey", &files[1]];
        let (child, port) = start_on_free_port(|port| run(port, &flags));
        Self { child, port }
    }

    /// One on this port: the server that was away is back.
    ///
    /// # Panics
    /// As [`Smtp::start`].
    #[must_use]
    pub fn start_on(port: u16) -> Self {
        let child = run(port, &[]).unwrap_or_else(|problem| panic!("{problem}"));
        Self { child, port }
    }

    /// `smtp://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process, to send it signals ("STOP" makes it hang, "CONT" wakes it).
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// The mails so far, whole, in no order. Header lines `X-MailFrom` and `X-RcptTo` have the envelope.
    ///
    /// # Panics
    /// When a mail cannot be read.
    #[must_use]
    pub fn mails(&self) -> Vec<String> {
        // A Maildir shows a mail here when it is whole.
        let Ok(files) = fs::read_dir(maildir(&self.child).join("new")) else { return Vec::new() };
        let read = |file: fs::DirEntry| fs::read_to_string(file.path()).expect("a mail is text");
        files.map(|file| read(file.expect("our own folder can be read"))).collect()
    }
}

fn run(port: u16, further: &[&str]) -> Result<Child, String> {
    let folder = tempfile::tempdir().map_err(|problem| problem.to_string())?;
    let mut server = Command::new("aiosmtpd");
    server.args(["--nosetuid", "--listen", &format!("127.0.0.1:{port}")]).args(further);
    server.args(["--class", "aiosmtpd.handlers.Mailbox"]).arg(folder.path().join("mail"));
    let speaks_tls = further.contains(&"--smtpscert");
    let ready = move |_: &Child| if speaks_tls { accepts(port) } else { greets(port) };
    Child::start(server, folder, "KILL", "python3-aiosmtpd")?.ready(READY_WITHIN, ready)
}

fn maildir(child: &Child) -> PathBuf {
    child.folder().join("mail")
}

fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn greets(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut greeting = [0; 4];
        socket.read_exact(&mut greeting)?;
        Ok(&greeting == b"220 ")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::{BufRead, BufReader, Write};

    use super::*;

    /// One mail by hand; the last answer.
    fn send(smtp: &Smtp) -> String {
        let socket = TcpStream::connect(("127.0.0.1", smtp.port)).unwrap();
        let (mut lines, mut socket) = (BufReader::new(socket.try_clone().unwrap()).lines(), socket);
        let mut answer = lines.next().unwrap().unwrap();
        for line in ["HELO x", "MAIL FROM:<a@x>", "RCPT TO:<b@x>", "DATA", "Subject: s\r\n\r\nHello\r\n."] {
            socket.write_all(format!("{line}\r\n").as_bytes()).unwrap();
            answer = lines.next().unwrap().unwrap();
        }
        answer
    }

    #[test]
    fn a_mail_that_was_taken_can_be_read() {
        let smtp = Smtp::start();
        assert!(smtp.mails().is_empty());
        assert!(send(&smtp).starts_with("250 "));
        let mails = smtp.mails();
        assert_eq!(mails.len(), 1);
        assert!(mails[0].contains("X-RcptTo: b@x") && mails[0].contains("Hello"), "{}", mails[0]);
    }

    #[test]
    fn one_that_refuses_takes_none() {
        let smtp = Smtp::start_refusing();
        assert!(send(&smtp).starts_with("552 "));
        assert!(smtp.mails().is_empty());
    }
}
