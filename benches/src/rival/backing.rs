//! What stands behind the sessions of [`Task::Auth`](crate::contest::Task::Auth): a Redis that holds one, and the service that nginx
//! asks about each request, which reads it there with one GET. Both work on the core of the load.

use std::{convert::Infallible, net::SocketAddr, process::Command, sync::mpsc, thread};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use tokio::{net::TcpListener, sync::oneshot};
use weir_testkit::Redis;

use crate::{measure::TOKEN, system::loopback};

/// Redis and the service; both end with it.
#[derive(Debug)]
pub struct Backing {
    redis: Redis,
    service: SocketAddr,
    _until: oneshot::Sender<()>,
}

/// Where they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    pub(super) redis: SocketAddr,
    pub(super) service: SocketAddr,
}

impl Backing {
    /// Starts them on this core, with the session of every request.
    ///
    /// # Errors
    /// What could not be started.
    ///
    /// # Panics
    /// When `redis-server` is missing.
    pub fn start(core: usize) -> Result<Self, String> {
        let redis = Redis::start();
        // This process, too: what it starts from now on stays there.
        for id in [redis.child().id(), std::process::id()] {
            let (core, id) = (core.to_string(), id.to_string());
            let pinned =
                Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", &core, &id]).output();
            pinned.map_err(|problem| format!("cannot start taskset: {problem}"))?;
        }
        redis.ask(&["SET", &format!("session:{TOKEN}"), r#"{"user_id":"u1"}"#]);
        let (url, (told, heard)) = (redis.url(), mpsc::sync_channel(1));
        let (_until, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime.map_err(|problem| told.send(Err(problem.to_string()))) else { return };
            runtime.block_on(async {
                match listen(&url).await {
                    Ok((listener, redis)) => {
                        let _ = told.send(listener.local_addr().map_err(|problem| problem.to_string()));
                        tokio::select! {
                            () = serve(listener, redis) => {}
                            _ = stopped => {}
                        }
                    }
                    Err(problem) => drop(told.send(Err(problem))),
                }
            });
        });
        let service = heard.recv().map_err(|_| "the service did not start".to_owned())??;
        Ok(Self { redis, service, _until })
    }

    pub(super) fn behind(&self) -> Behind {
        Behind { redis: self.redis.address(), service: self.service }
    }
}

async fn listen(url: &str) -> Result<(TcpListener, MultiplexedConnection), String> {
    let redis = redis::Client::open(url).map_err(|problem| problem.to_string())?;
    let redis = redis.get_multiplexed_async_connection().await.map_err(|problem| problem.to_string())?;
    let listener = TcpListener::bind(loopback(0)).await.map_err(|problem| problem.to_string())?;
    Ok((listener, redis))
}

async fn serve(listener: TcpListener, redis: MultiplexedConnection) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let redis = redis.clone();
        let answer = service_fn(move |request| answer(request, redis.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// 204 and whose it is, or 401.
async fn answer(
    request: Request<Incoming>,
    mut redis: MultiplexedConnection,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let token = request.headers().get("x-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    let held: Option<String> = redis.get(format!("session:{token}")).await.unwrap_or_default();
    let mut answer = Response::new(Empty::new());
    *answer.status_mut() = if held.is_some() { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED };
    if let Some(user) = held.and_then(|held| serde_json::from_str::<serde_json::Value>(&held).ok())
        && let Some(user) = user["user_id"].as_str().and_then(|user| user.parse().ok())
    {
        answer.headers_mut().insert("x-user", user);
    }
    Ok(answer)
}
