//! `--probe`: a health check for containers, whose images have no program that speaks HTTP.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

/// A service that does not answer in this time is not well.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most that is read of an answer: a page of conditions.
const MAX_ANSWER: u64 = 16 << 10;

/// Asks `/readyz` of the service that was started with the same options, prints what it says, and exits 0 = ready, 1 = not.
pub(crate) fn run(address: SocketAddr) -> ExitCode {
    match ask(address) {
        Ok(answer) => {
            println!("{}", answer.body);
            if answer.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("cannot ask {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Answer {
    ready: bool,
    body: String,
}

fn ask(address: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection. In one write: who answers early may have closed before a second one.
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The status line says whether, the body says why.
fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let ready = head.split(' ').nth(1) == Some("200");
    Answer { ready, body: body.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn service_that_says(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_service_is_ready_when_it_answers_200() {
        let answer = ask(service_that_says("HTTP/1.0 200 OK\r\na: b\r\n\r\n{\"ready\":true}\n")).unwrap();
        assert!(answer.ready);
        assert_eq!(answer.body, "{\"ready\":true}");
    }

    #[test]
    fn a_service_that_answers_anything_else_is_not_ready() {
        assert!(!ask(service_that_says("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"ready\":false}")).unwrap().ready);
        assert!(!ask(service_that_says("200")).unwrap().ready);
        assert!(!ask(service_that_says("")).unwrap().ready);
    }

    #[test]
    fn a_service_that_is_not_there_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(ask(address).is_err());
    }
}
