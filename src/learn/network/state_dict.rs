//! The networks have the tensors that the contract lists, and no others: what `import-weights` writes is
//! what training reads.

use pipeline_stages::kinds::architecture::{Architecture, EncoderArchitecture};
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::state_dict::{self, ElementType, TensorSpec};
use tch::{Device, Kind};

use super::{Classifier, FrozenEncoder, NetworkTensor, feature_count};

#[test]
fn every_network_has_the_tensors_of_its_state_dict() {
    for &architecture in Architecture::ALL {
        let network = Classifier::new(architecture, 3, 2, 0, Device::Cpu).unwrap();
        let encoder = network.state().tensors().iter();
        let encoder = encoder.filter(|named| !Classifier::in_head(&named.name));
        assert_eq!(specs(encoder), state_dict::encoder(architecture, 3), "{architecture}");
        let features = state_dict::feature_count(architecture);
        assert_eq!(usize::try_from(feature_count(architecture)).unwrap(), features);
    }
    for architecture in EncoderArchitecture::all() {
        let frozen = FrozenEncoder::new(architecture, 1, Precision::F32, Device::Cpu).unwrap();
        let found = specs(frozen.state().tensors().iter());
        assert_eq!(found, state_dict::encoder(architecture, 1), "{architecture}");
    }
}

fn specs<'a>(tensors: impl Iterator<Item = &'a NetworkTensor>) -> Vec<TensorSpec> {
    let spec = |named: &NetworkTensor| TensorSpec {
        name: named.name.clone(),
        shape: named.tensor.size().into_iter().map(|size| size as usize).collect(),
        element: match named.tensor.kind() {
            Kind::Float => ElementType::F32,
            Kind::Int64 => ElementType::I64,
            other => panic!("{} is {other:?}", named.name),
        },
    };
    tensors.map(spec).collect()
}
