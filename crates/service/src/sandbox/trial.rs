//! Trying what must not be possible, so that a layer that does not hold is seen.

use std::ffi::CString;
use std::fs::File;
use std::io;

/// Something that a confined process must not be able to do, and what came of it.
#[derive(Debug)]
pub struct Trial {
    /// For people: "open /etc/passwd".
    pub what: &'static str,
    /// Why it was refused; none = it was possible.
    pub refused: Option<String>,
}

type Attempt = fn() -> io::Result<()>;

/// Tries to get out of the sandbox, harmlessly: what succeeds is undone.
#[must_use]
pub fn attempts() -> Vec<Trial> {
    let trials: [(&'static str, Attempt); 10] = [
        ("read /etc/passwd", || File::open("/etc/passwd").map(drop)),
        ("write a file", write_a_file),
        ("start a program", start_a_program),
        ("start a process", start_a_process),
        ("make memory executable", make_executable_memory),
        ("open a raw socket", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
        ("open a packet socket", || socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("open a netlink socket", || socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
        ("connect to port 1", || connect_to(1)),
        ("signal another process", signal_another_process),
    ];
    trials
        .into_iter()
        .map(|(what, attempt)| Trial { what, refused: attempt().err().map(|error| error.to_string()) })
        .collect()
}

fn write_a_file() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("weir-sandbox-{}", std::process::id()));
    File::create(&path)?;
    std::fs::remove_file(path)
}

fn start_a_program() -> io::Result<()> {
    let path = CString::new("/proc/self/exe")?;
    let nothing: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: `execve` of a path with empty lists of arguments and variables; a kernel that allows it is told a flag that makes it
    // return without starting anything.
    let result = unsafe {
        libc::syscall(libc::SYS_execveat, libc::AT_FDCWD, path.as_ptr(), nothing.as_ptr(), nothing.as_ptr(), 1 << 30)
    };
    // A kernel that looks at the flags has let the call pass.
    match io::Error::last_os_error() {
        error if result == -1 && error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        error => Err(error),
    }
}

fn start_a_process() -> io::Result<()> {
    // SAFETY: the child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child without running anything of the parent's.
        0 => unsafe { libc::_exit(0) },
        child => {
            // SAFETY: waits for the child above; its status is not asked for.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}

fn make_executable_memory() -> io::Result<()> {
    const PAGE: usize = 4096;
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: new anonymous memory, at an address that the kernel chooses.
    let memory =
        unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the memory from above, which nobody uses.
    unsafe { libc::munmap(memory, PAGE) };
    Ok(())
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(family, kind, protocol) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor from above, which nobody else has.
    unsafe { libc::close(socket) };
    Ok(())
}

/// A connection that the other side refuses was possible.
fn connect_to(port: u16) -> io::Result<()> {
    match std::net::TcpStream::connect(("127.0.0.1", port)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        result => result.map(drop),
    }
}

/// Signal 0: whether it would be allowed.
fn signal_another_process() -> io::Result<()> {
    // SAFETY: no pointers; signal 0 does nothing.
    if unsafe { libc::kill(libc::getppid(), 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
