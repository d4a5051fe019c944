//! The named tensors of a network, in the order of PyTorch's `state_dict`.
//!
//! Layers know a tensor by its [`Slot`]; which values a forward pass uses is the pass's affair. The
//! optimizer holds handles to the same storage: changing a tensor in place changes it for all. Does not depend on layers or
//! files.

use anyhow::{Context, ensure};
use tch::{Device, Kind, Tensor};

use crate::random::{Purpose, Stream};

/// What a tensor is to training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorRole {
    /// Moved by the optimizer.
    Trained,
    /// Kept up by the forward pass (running statistics), or fixed.
    Kept,
}

/// The place of a tensor in the state of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub(super) usize);

/// A tensor with its name.
#[derive(Debug)]
pub struct NetworkTensor {
    /// The name in a state dict: `layer1.0.conv1.weight`.
    pub name: String,
    /// The values.
    pub tensor: Tensor,
    /// What it is to training.
    pub role: TensorRole,
}

/// The named tensors of a network.
#[derive(Debug, Default)]
pub struct NetworkState {
    tensors: Vec<NetworkTensor>,
}

impl NetworkState {
    /// All tensors, in order.
    pub fn tensors(&self) -> &[NetworkTensor] {
        &self.tensors
    }

    /// Those that the optimizer moves, in order.
    pub fn trained(&self) -> impl Iterator<Item = &NetworkTensor> {
        self.tensors.iter().filter(|named| named.role == TensorRole::Trained)
    }

    /// A state with the values that this one has now, whatever happens to them later.
    ///
    /// # Errors
    /// When libtorch cannot copy them.
    pub fn copy(&self) -> anyhow::Result<Self> {
        let copy = |named: &NetworkTensor| {
            let now = named.tensor.f_detach()?;
            let mut tensor = now.f_empty_like()?;
            tensor.f_copy_(&now)?;
            Ok(NetworkTensor { name: named.name.clone(), tensor, role: named.role })
        };
        let tensors = self.tensors.iter().map(copy).collect::<anyhow::Result<_>>()?;
        Ok(Self { tensors })
    }

    /// Takes over the values of another state of the same network, in place.
    ///
    /// # Errors
    /// When libtorch cannot copy them.
    pub fn copy_from(&self, other: &Self) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        for (own, other) in self.tensors.iter().zip(&other.tensors) {
            own.tensor.shallow_clone().f_copy_(&other.tensor)?;
        }
        Ok(())
    }

    /// Moves its numbers by this share of the way towards those of another state of the same network, in place. Counters are
    /// taken over.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn move_towards(&self, other: &Self, share: f64) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        for (own, other) in self.tensors.iter().zip(&other.tensors) {
            let mut own = own.tensor.shallow_clone();
            if own.f_kind()? == Kind::Int64 {
                own.f_copy_(&other.tensor)?;
            } else {
                let _ = own.f_lerp_(&other.tensor, share)?;
            }
        }
        Ok(())
    }

    /// The tensors, as a forward pass takes them.
    pub fn values(&self) -> Values {
        Values(self.tensors.iter().map(|named| named.tensor.shallow_clone()).collect())
    }

    /// The tensors, with others in the place of the trained ones: `trained` are in the order of
    /// [`NetworkState::trained`]. What the others are made of stays as it is.
    ///
    /// # Errors
    /// When there are not as many as trained tensors.
    pub fn values_with(&self, trained: &[Tensor]) -> anyhow::Result<Values> {
        let count = self.trained().count();
        ensure!(trained.len() == count, "{} tensors for {count} parameters", trained.len());
        let mut replacements = trained.iter();
        let value = |named: &NetworkTensor| match named.role {
            TensorRole::Trained => replacements.next().unwrap_or(&named.tensor).shallow_clone(),
            TensorRole::Kept => named.tensor.shallow_clone(),
        };
        Ok(Values(self.tensors.iter().map(value).collect()))
    }
}

/// What the tensors of a network are in one forward pass, by slot.
#[derive(Debug)]
pub struct Values(Vec<Tensor>);

impl std::ops::Index<Slot> for Values {
    type Output = Tensor;

    fn index(&self, slot: Slot) -> &Tensor {
        &self.0[slot.0]
    }
}

/// How the values of a tensor start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// All the same.
    Constant(f64),
    /// Normal with standard deviation sqrt(2 / fan-out): `kaiming_normal_(mode='fan_out', nonlinearity='relu')`
    /// (He et al., 2015). What torchvision uses for convolutions.
    KaimingNormalFanOut,
    /// The same with sqrt(2 / fan-in): `kaiming_normal_` as it is by default.
    KaimingNormalFanIn,
    /// Uniform within 1 / sqrt(fan-in): `kaiming_uniform_(a=sqrt(5))`, PyTorch's default for
    /// convolutions and linear layers.
    UniformFanIn,
    /// Uniform within this bound on both sides of zero.
    Within(f64),
}

/// Makes the tensors of a network, layer by layer.
pub struct Builder {
    seed: u64,
    purpose: Purpose,
    /// How many tensors were there when the purpose began: its streams count from here.
    first: usize,
    /// Which of several networks it is.
    number: u32,
    device: Device,
    prefix: Vec<String>,
    state: NetworkState,
}

impl Builder {
    /// A builder whose draws are named by the seed and the purpose.
    pub fn new(seed: u64, purpose: Purpose, device: Device) -> Self {
        Self {
            seed,
            purpose,
            first: 0,
            number: 0,
            device,
            prefix: Vec::new(),
            state: NetworkState::default(),
        }
    }

    /// Names the draws by which of several networks this is, too; 0 is as without.
    #[must_use]
    pub fn of_network(self, number: u32) -> Self {
        Self { number, ..self }
    }

    /// Names the draws from here on by another purpose.
    pub fn begin(&mut self, purpose: Purpose) {
        (self.purpose, self.first) = (purpose, self.state.tensors.len());
    }

    /// Builds a part of the network under a name.
    pub fn within<T>(
        &mut self,
        name: impl Into<String>,
        build: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.prefix.push(name.into());
        let built = build(self);
        self.prefix.pop();
        built
    }

    /// A tensor of 32-bit floats. The first dimension counts outputs, the second inputs.
    pub fn float(
        &mut self,
        name: &str,
        shape: &[i64],
        initial: Initial,
        role: TensorRole,
    ) -> anyhow::Result<Slot> {
        let values = self.values(shape, initial);
        let tensor = Tensor::f_from_slice(&values)?.f_reshape(shape)?;
        self.add(name, tensor, role)
    }

    /// A counter: a 64-bit integer without dimensions, from zero. It stays on the host, where counting costs less
    /// than telling a GPU to.
    pub fn counter(&mut self, name: &str) -> anyhow::Result<Slot> {
        let tensor = Tensor::f_zeros([0i64; 0].as_slice(), (Kind::Int64, Device::Cpu))?;
        Ok(self.push(name, tensor, TensorRole::Kept))
    }

    /// All that was built.
    pub fn finish(self) -> NetworkState {
        self.state
    }

    fn add(&mut self, name: &str, tensor: Tensor, role: TensorRole) -> anyhow::Result<Slot> {
        let mut tensor = tensor.f_to_device(self.device)?;
        if role == TensorRole::Trained {
            tensor = tensor.f_set_requires_grad(true)?;
        }
        Ok(self.push(name, tensor, role))
    }

    fn push(&mut self, name: &str, tensor: Tensor, role: TensorRole) -> Slot {
        let mut path = self.prefix.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        let slot = Slot(self.state.tensors.len());
        self.state.tensors.push(NetworkTensor { name: path, tensor, role });
        slot
    }

    fn values(&self, shape: &[i64], initial: Initial) -> Vec<f32> {
        let count = shape.iter().product::<i64>() as usize;
        let receptive = shape.iter().skip(2).product::<i64>();
        let fan =
            |dimension: usize| (shape.get(dimension).copied().unwrap_or(1) * receptive) as f64;
        let index = (self.state.tensors.len() - self.first) as u32;
        let mut stream = Stream::new(self.seed, self.purpose, self.number, index);
        match initial {
            Initial::Constant(value) => vec![value as f32; count],
            Initial::KaimingNormalFanOut => normal((2.0 / fan(0)).sqrt(), &mut stream, count),
            Initial::KaimingNormalFanIn => normal((2.0 / fan(1)).sqrt(), &mut stream, count),
            Initial::UniformFanIn => uniform_within(1.0 / fan(1).sqrt(), &mut stream, count),
            Initial::Within(bound) => uniform_within(bound, &mut stream, count),
        }
    }
}

fn normal(deviation: f64, stream: &mut Stream, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (first, second) = stream.normal_pair();
        values.extend([(first * deviation) as f32, (second * deviation) as f32]);
    }
    values.truncate(count);
    values
}

fn uniform_within(bound: f64, stream: &mut Stream, count: usize) -> Vec<f32> {
    (0..count).map(|_| stream.uniform_in(-bound, bound) as f32).collect()
}

/// The bytes of a tensor, little-endian and in row-major order, whatever its device and strides.
///
/// # Errors
/// When libtorch cannot copy it.
pub fn bytes_of(tensor: &Tensor) -> anyhow::Result<Vec<u8>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let count = tensor.numel();
    let mut bytes = vec![0; count * tensor.f_kind()?.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, count).context("copying a tensor")?;
    Ok(bytes)
}
