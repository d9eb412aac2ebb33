//! A runtime that speaks the Container Runtime Interface and does what a test tells it: CRI-O is in no package of this system.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    response::Response,
    routing::post,
};
use futures::{StreamExt as _, stream::BoxStream};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::broadcast, task::JoinHandle};
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Status as Refusal, codegen::Service, server::Grpc, service::Routes, transport::Server};
use tonic_prost::ProstCodec;
use weir_docker_watcher::cri::messages::{
    About, Container, ContainerEvent, EventsRequest, Filter, Image, LinuxResources, List, ListRequest, Metadata, Pod,
    PodMetadata, PodResponse, Resources, StatsResponse, Status, StatusResponse, Version,
};
use weir_docker_watcher::grpc::Label;

const POD: &str = "pod-1";

/// The runtime.
pub(crate) struct ScriptedCri {
    directory: TempDir,
    state: Arc<Runtime>,
    server: JoinHandle<()>,
}

struct Runtime {
    containers: Mutex<BTreeMap<String, Status>>,
    events: broadcast::Sender<ContainerEvent>,
    /// Whether it offers events.
    tells: bool,
}

impl ScriptedCri {
    pub(crate) fn start(tells: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("crio.sock")).unwrap();
        let state = Arc::new(Runtime { containers: Mutex::default(), events: broadcast::Sender::new(64), tells });
        let router =
            Router::new().route("/runtime.v1.RuntimeService/{method}", post(answer)).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move {
            let routes = Server::builder().add_routes(Routes::from(router));
            routes.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { directory, state, server }
    }

    pub(crate) fn socket(&self) -> String {
        self.directory.path().join("crio.sock").display().to_string()
    }

    /// Changes a container (or makes one), and tells it where events are told. 0 created, 1 started, 2 stopped.
    pub(crate) fn change(&self, id: &str, kind: i32, change: impl FnOnce(&mut Status)) {
        let status = {
            let mut containers = self.state.containers.lock().unwrap();
            let status = containers.entry(id.to_owned()).or_insert_with(|| Status {
                id: id.to_owned(),
                metadata: Some(Metadata { name: "till".into(), attempt: 0 }),
                image: Some(Image { image: "shop:1".into() }),
                image_ref: "registry.example/shop@sha256:cafe".into(),
                image_id: "sha256:beef".into(),
                labels: vec![Label { key: b"not-utf-8".to_vec(), value: vec![b'x', 0xff, 0xfe] }],
                resources: Some(Resources {
                    linux: Some(LinuxResources {
                        cpu_period: 100_000,
                        cpu_quota: 150_000,
                        memory_limit_in_bytes: 1 << 20,
                    }),
                }),
                ..Status::default()
            });
            status.state = kind;
            change(status);
            status.clone()
        };
        self.tell(id, kind, vec![status]);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.state.containers.lock().unwrap().remove(id);
        self.tell(id, 3, Vec::new());
    }

    fn tell(&self, id: &str, kind: i32, containers: Vec<Status>) {
        // Err = nobody listens.
        let _told = self.state.events.send(ContainerEvent {
            container_id: id.to_owned(),
            kind,
            created_at: 1,
            pod: Some(pod()),
            containers,
        });
    }
}

impl Drop for ScriptedCri {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn pod() -> Pod {
    let metadata = PodMetadata { name: "till-7d9f".into(), uid: "u".into(), namespace: "shop".into() };
    Pod { id: POD.into(), metadata: Some(metadata), ..Pod::default() }
}

async fn answer(State(runtime): State<Arc<Runtime>>, Path(method): Path<String>, request: Request) -> Response {
    let missing = || Refusal::not_found("no such container");
    match method.as_str() {
        "Version" => unary(request, |_: Filter| Ok(Version { runtime_name: "cri-o".into() })).await,
        "ListContainers" => {
            unary(request, move |_: ListRequest| {
                let containers = runtime.containers.lock().unwrap();
                let one = |status: &Status| Container {
                    id: status.id.clone(),
                    pod_sandbox_id: POD.into(),
                    state: status.state,
                };
                Ok(List { containers: containers.values().map(one).collect() })
            })
            .await
        }
        "ContainerStatus" => {
            unary(request, move |about: About| {
                let status = runtime.containers.lock().unwrap().get(&about.id).cloned();
                let info = [("info".to_owned(), format!(r#"{{"sandboxID":"{POD}","pid":0}}"#))].into();
                Ok(StatusResponse { status: Some(status.ok_or_else(missing)?), info })
            })
            .await
        }
        "PodSandboxStatus" => {
            unary(request, |_: About| {
                let mapping = r#"{"config":{"port_mappings":[{"container_port":80,"host_port":8080}]}}"#;
                Ok(PodResponse { status: Some(pod()), info: [("info".to_owned(), mapping.to_owned())].into() })
            })
            .await
        }
        "GetContainerEvents" if runtime.tells => {
            let events = BroadcastStream::new(runtime.events.subscribe());
            let events = events.map(|event| event.map_err(|_| Refusal::data_loss("too slow"))).boxed();
            let mut grpc = Grpc::new(ProstCodec::<ContainerEvent, EventsRequest>::default());
            grpc.server_streaming(Streaming(Some(events)), request).await.map(Body::new)
        }
        "GetContainerEvents" => unary(request, |_: EventsRequest| Err::<List, _>(Refusal::unimplemented("no"))).await,
        _ => unary(request, move |_: About| Err::<StatsResponse, _>(missing())).await,
    }
}

async fn unary<Q, A>(request: Request, answer: impl FnOnce(Q) -> Result<A, Refusal> + Send + 'static) -> Response
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    Grpc::new(ProstCodec::<A, Q>::default()).unary(Once(Some(answer)), request).await.map(Body::new)
}

struct Once<F>(Option<F>);

impl<Q, A, F: FnOnce(Q) -> Result<A, Refusal>> Service<tonic::Request<Q>> for Once<F> {
    type Response = tonic::Response<A>;
    type Error = Refusal;
    type Future = Ready<Result<Self::Response, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = self.0.take().expect("called once");
        ready(answer(request.into_inner()).map(tonic::Response::new))
    }
}

type Events = BoxStream<'static, Result<ContainerEvent, Refusal>>;

struct Streaming(Option<Events>);

impl Service<tonic::Request<EventsRequest>> for Streaming {
    type Response = tonic::Response<Events>;
    type Error = Refusal;
    type Future = Ready<Result<Self::Response, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::Request<EventsRequest>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.take().expect("called once"))))
    }
}
