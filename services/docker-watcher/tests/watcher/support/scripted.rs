//! An engine that answers what a test tells it to: for what a real one does too rarely, or never does until the day it does.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// What is answered to a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status and a whole body.
    Whole(u16, String),
    /// The first half of a body, and the end of the connection.
    Half(String),
    /// Lines of a stream that does not end.
    Lines(Vec<String>),
    /// Nothing, for ever.
    Silence,
}

/// The engine.
pub(crate) struct Scripted {
    directory: TempDir,
    server: JoinHandle<()>,
}

impl Scripted {
    /// Answers by the end of the path without its query; all else is 404.
    pub(crate) fn start(answers: HashMap<&'static str, Answer>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let answers = Arc::new(answers);
        let server = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(connection, Arc::clone(&answers)));
            }
        });
        Self { directory, server }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(connection: UnixStream, answers: Arc<HashMap<&'static str, Answer>>) {
    let mut connection = BufReader::new(connection);
    let mut request = String::new();
    // A client that only looks whether somebody listens asks nothing.
    if connection.read_line(&mut request).await.unwrap_or(0) == 0 {
        return;
    }
    let mut header = String::new();
    while connection.read_line(&mut header).await.is_ok_and(|read| read > 2) {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let found = answers.iter().find(|(end, _)| path.ends_with(**end)).map(|(_, answer)| answer.clone());
    let found = found.unwrap_or_else(|| Answer::Whole(404, r#"{"message":"no such container"}"#.to_owned()));
    // The client may have gone away meanwhile.
    let _written = write(&mut connection, found).await;
}

async fn write(connection: &mut BufReader<UnixStream>, answer: Answer) -> std::io::Result<()> {
    let head = "Content-Type: application/json\r\nConnection: close\r\n";
    match answer {
        Answer::Whole(status, body) => {
            let response = format!("HTTP/1.1 {status} S\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
            connection.write_all(response.as_bytes()).await
        }
        Answer::Half(body) => {
            let (half, _) = body.split_at(body.len() / 2);
            let response = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{half}", body.len());
            connection.write_all(response.as_bytes()).await
        }
        Answer::Lines(lines) => {
            connection
                .write_all(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
                .await?;
            for line in lines {
                let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
                connection.write_all(chunk.as_bytes()).await?;
            }
            until_closed(connection).await
        }
        Answer::Silence => until_closed(connection).await,
    }
}

async fn until_closed(connection: &mut BufReader<UnixStream>) -> std::io::Result<()> {
    connection.read_line(&mut String::new()).await.map(drop)
}
