//! A stream of a GPU, and graphs: what a thread gives to the stream, once, to be started again and again.
//!
//! A libtorch without CUDA has neither, and a call says so as an error.

use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::checked;

/// A stream of a GPU: work that is done in the order in which it is given.
#[derive(Debug)]
pub struct CudaStream {
    gpu: i8,
    id: i64,
}

impl CudaStream {
    /// One of libtorch's own, beside the default one.
    ///
    /// # Errors
    /// When there is no such GPU, or this libtorch has no CUDA.
    pub fn new(gpu: usize) -> anyhow::Result<Self> {
        let (gpu, mut id) = (i8::try_from(gpu)?, 0);
        // SAFETY: the pointers are valid for the call, and the size is that of the message.
        checked(|message| unsafe {
            pipeline_stream_new(gpu, &raw mut id, message.as_mut_ptr(), message.len())
        })?;
        Ok(Self { gpu, id })
    }

    /// Gives the work of a function to this stream, not to the thread's own. On the GPU, it comes after what that one was
    /// given before, and before what it is given later.
    ///
    /// # Errors
    /// Those of the function, or when libtorch fails.
    pub fn run<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let in_use = InUse { own: exchange(self.gpu, self.id)?, stream: self };
        self.wait(self.id, in_use.own)?;
        let done = work();
        // Also after an error: part of the work may have been given.
        let waited = self.wait(in_use.own, self.id);
        let done = done?;
        waited.map(|()| done)
    }

    fn wait(&self, later: i64, earlier: i64) -> anyhow::Result<()> {
        // SAFETY: the pointer is valid for the call, and the size is that of the message.
        checked(|message| unsafe {
            pipeline_stream_wait(self.gpu, later, earlier, message.as_mut_ptr(), message.len())
        })
    }
}

/// A stream as that of the thread, until it is dropped.
struct InUse<'a> {
    stream: &'a CudaStream,
    own: i64,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        // It was the thread's before, so it can be again.
        let _ = exchange(self.stream.gpu, self.own);
    }
}

/// Makes a stream that of the thread, and returns the one before.
fn exchange(gpu: i8, id: i64) -> anyhow::Result<i64> {
    let mut before = 0;
    // SAFETY: the pointers are valid for the call, and the size is that of the message.
    checked(|message| unsafe {
        pipeline_stream_use(gpu, id, &raw mut before, message.as_mut_ptr(), message.len())
    })?;
    Ok(before)
}

/// What there is of a GPU's memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// What nobody has.
    pub free: u64,
    /// How much more than now libtorch has had at once.
    pub needed: u64,
}

impl Room {
    /// After libtorch returned what it keeps for later. Waits for the GPU.
    ///
    /// # Errors
    /// When libtorch fails, or has no CUDA.
    pub fn of(gpu: usize) -> anyhow::Result<Self> {
        let (gpu, mut free, mut needed) = (i8::try_from(gpu)?, 0, 0);
        // SAFETY: the pointers are valid for the call, and the size is that of the message.
        checked(|message| unsafe {
            let (text, size) = (message.as_mut_ptr(), message.len());
            pipeline_gpu_room(gpu, &raw mut free, &raw mut needed, text, size)
        })?;
        Ok(Self { free, needed })
    }
}

/// Work of a GPU that was recorded. It is done at the addresses of the tensors that it was recorded with: these have to stay.
///
/// The graph has the memory of everything between. It has to be dropped before the process ends.
#[derive(Debug)]
pub struct CudaGraph {
    graph: NonNull<c_void>,
    gpu: i8,
    /// Of the thread that recorded it.
    _not_send: PhantomData<*const ()>,
}

impl CudaGraph {
    /// Records what a function gives to a stream. Nothing of it is done yet.
    ///
    /// # Errors
    /// Those of the function; when it did what cannot be recorded, as waiting for the GPU; when this libtorch has no graphs.
    pub fn record(
        stream: &CudaStream,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointers are valid for the call, and the size is that of the message.
        checked(|message| unsafe {
            pipeline_graph_new(&raw mut graph, message.as_mut_ptr(), message.len())
        })?;
        let graph = NonNull::new(graph);
        let graph = graph.ok_or_else(|| anyhow::anyhow!("libtorch made no graph"))?;
        let graph = Self { graph, gpu: stream.gpu, _not_send: PhantomData };
        let mut has_ended = false;
        let recorded = stream.run(|| {
            graph.call(pipeline_graph_begin)?;
            let given = work();
            let ended = graph.call(pipeline_graph_end);
            has_ended = ended.is_ok();
            given.and(ended)
        });
        match recorded {
            Ok(()) => Ok(graph),
            Err(error) => {
                if !has_ended {
                    // libtorch's allocator may go on asking it which memory is its own.
                    std::mem::forget(graph);
                }
                Err(error)
            }
        }
    }

    /// Does all of it again, on the stream of the thread. Does not wait for the GPU.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn replay(&self) -> anyhow::Result<()> {
        self.call(pipeline_graph_replay)
    }

    fn call(&self, function: GraphFunction) -> anyhow::Result<()> {
        // SAFETY: the graph lives; the pointer is valid for the call, and the size is that of the message.
        checked(|message| unsafe {
            function(self.graph.as_ptr(), self.gpu, message.as_mut_ptr(), message.len())
        })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: it lives, and this is its end.
        unsafe { pipeline_graph_free(self.graph.as_ptr()) }
    }
}

type GraphFunction = unsafe extern "C" fn(*mut c_void, i8, *mut c_char, usize) -> bool;

unsafe extern "C" {
    fn pipeline_stream_new(gpu: i8, id: *mut i64, message: *mut c_char, size: usize) -> bool;
    fn pipeline_stream_use(
        gpu: i8,
        id: i64,
        before: *mut i64,
        message: *mut c_char,
        size: usize,
    ) -> bool;
    fn pipeline_stream_wait(
        gpu: i8,
        later: i64,
        earlier: i64,
        message: *mut c_char,
        size: usize,
    ) -> bool;
    fn pipeline_gpu_room(
        gpu: i8,
        free: *mut u64,
        needed: *mut u64,
        message: *mut c_char,
        size: usize,
    ) -> bool;
    fn pipeline_graph_new(graph: *mut *mut c_void, message: *mut c_char, size: usize) -> bool;
    fn pipeline_graph_begin(graph: *mut c_void, gpu: i8, message: *mut c_char, size: usize)
    -> bool;
    fn pipeline_graph_end(graph: *mut c_void, gpu: i8, message: *mut c_char, size: usize) -> bool;
    fn pipeline_graph_replay(
        graph: *mut c_void,
        gpu: i8,
        message: *mut c_char,
        size: usize,
    ) -> bool;
    fn pipeline_graph_free(graph: *mut c_void);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GPU of this number is in no machine.
    const NONE: usize = 99;

    #[test]
    fn without_a_gpu_each_call_is_an_error_and_nothing_more() {
        let stream = CudaStream { gpu: NONE as i8, id: 0 };
        let never = || -> anyhow::Result<()> { panic!("there is nothing to give it to") };
        for error in [
            CudaStream::new(NONE).map(drop).unwrap_err(),
            CudaStream::new(1000).map(drop).unwrap_err(),
            stream.run(never).unwrap_err(),
            CudaGraph::record(&stream, never).map(drop).unwrap_err(),
            Room::of(NONE).map(drop).unwrap_err(),
        ] {
            eprintln!("{error:#}");
        }
    }
}
