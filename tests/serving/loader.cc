// Runs requests on SavedModels with the loader of TensorFlow Serving.
//
//   loader ROUNDS (MODEL REQUESTS ANSWERS)...
//
// REQUESTS is a file of PredictionLog messages, as the warm-up requests are. ANSWERS
// gets a PredictResponse message for each, or an empty one for a request that the
// model refused; the reasons go to stderr. Every round runs all requests of all
// models in turn. Standard output has a line "MODEL REQUEST SECONDS" for each run,
// models and requests counted from 0.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/lib/io/record_reader.h"
#include "tensorflow/core/lib/io/record_writer.h"
#include "tensorflow/core/protobuf/named_tensor.pb.h"

namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::internal::WireFormatLite;
using tensorflow::NamedTensorProto;
using tensorflow::Tensor;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status.ToString() << std::endl;
  std::exit(1);
}

struct Request {
  std::string signature;
  std::vector<std::pair<std::string, Tensor>> inputs;
};

// All fields of a message with this number, as bytes. The wheel of TensorFlow has no
// headers of the messages of TensorFlow Serving, so these are read as they travel.
std::vector<std::string> Fields(const std::string& message, int number) {
  CodedInputStream stream(reinterpret_cast<const uint8_t*>(message.data()),
                          message.size());
  std::vector<std::string> found;
  while (uint32_t tag = stream.ReadTag()) {
    if (WireFormatLite::GetTagFieldNumber(tag) != number) {
      WireFormatLite::SkipField(&stream, tag);
      continue;
    }
    uint32_t size;
    std::string bytes;
    if (!stream.ReadVarint32(&size) || !stream.ReadString(&bytes, size)) {
      std::cerr << "A request is cut off." << std::endl;
      std::exit(1);
    }
    found.push_back(bytes);
  }
  return found;
}

// PredictionLog.predict_log (6) .request (1) has model_spec (1), with signature_name
// (3), and inputs (2): a map, whose entries travel as NamedTensorProto does.
Request Parse(const std::string& log) {
  const std::string request = Fields(Fields(log, 6).at(0), 1).at(0);
  Request parsed{Fields(Fields(request, 1).at(0), 3).at(0), {}};
  for (const std::string& entry : Fields(request, 2)) {
    NamedTensorProto named;
    Tensor tensor;
    if (!named.ParseFromString(entry) || !tensor.FromProto(named.tensor())) {
      std::cerr << "An input is no tensor." << std::endl;
      std::exit(1);
    }
    parsed.inputs.emplace_back(named.name(), tensor);
  }
  return parsed;
}

std::vector<Request> ReadRequests(const std::string& path) {
  std::unique_ptr<tensorflow::RandomAccessFile> file;
  Check(tensorflow::Env::Default()->NewRandomAccessFile(path, &file));
  tensorflow::io::RecordReader reader(file.get());
  tensorflow::uint64 offset = 0;
  tensorflow::tstring record;
  std::vector<Request> requests;
  while (reader.ReadRecord(&offset, &record).ok()) {
    requests.push_back(Parse(std::string(record)));
  }
  return requests;
}

// A model that is named twice is loaded once.
std::shared_ptr<tensorflow::SavedModelBundle> Load(const std::string& path) {
  static std::map<std::string, std::shared_ptr<tensorflow::SavedModelBundle>> loaded;
  auto& bundle = loaded[path];
  if (bundle == nullptr) {
    bundle = std::make_shared<tensorflow::SavedModelBundle>();
    Check(tensorflow::LoadSavedModel({}, {}, path, {"serve"}, bundle.get()));
  }
  return bundle;
}

class Model {
 public:
  Model(const std::string& path, const std::string& requests)
      : requests_(ReadRequests(requests)),
        answers_(requests_.size()),
        bundle_(Load(path)) {}

  size_t size() const { return requests_.size(); }

  // Answers request i, and returns the seconds that the session took.
  double Run(size_t i) {
    const Request& request = requests_[i];
    const auto& signature = bundle_->GetSignatures().at(request.signature);
    std::vector<std::pair<std::string, Tensor>> inputs;
    for (const auto& [name, tensor] : request.inputs) {
      inputs.emplace_back(signature.inputs().at(name).name(), tensor);
    }
    std::vector<std::string> names, fetches;
    for (const auto& [name, info] : signature.outputs()) {
      names.push_back(name);
      fetches.push_back(info.name());
    }
    std::vector<Tensor> outputs;
    const auto begin = std::chrono::steady_clock::now();
    const auto status = bundle_->GetSession()->Run(inputs, fetches, {}, &outputs);
    const std::chrono::duration<double> taken =
        std::chrono::steady_clock::now() - begin;
    answers_[i] = status.ok() ? Response(names, outputs) : std::string();
    if (!status.ok()) std::cerr << i << ": " << status.message() << std::endl;
    return taken.count();
  }

  void WriteAnswers(const std::string& path) const {
    std::unique_ptr<tensorflow::WritableFile> file;
    Check(tensorflow::Env::Default()->NewWritableFile(path, &file));
    tensorflow::io::RecordWriter writer(file.get());
    for (const std::string& answer : answers_) Check(writer.WriteRecord(answer));
    Check(writer.Close());
    Check(file->Close());
  }

 private:
  // PredictResponse.outputs (1) is a map as well.
  static std::string Response(const std::vector<std::string>& names,
                              const std::vector<Tensor>& outputs) {
    std::string bytes;
    for (size_t i = 0; i < names.size(); ++i) {
      NamedTensorProto named;
      named.set_name(names[i]);
      outputs[i].AsProtoTensorContent(named.mutable_tensor());
      const std::string entry = named.SerializeAsString();
      bytes += '\x0a';  // field 1, with a length
      for (size_t size = entry.size(); ; size >>= 7) {
        if (size < 128) {
          bytes += static_cast<char>(size);
          break;
        }
        bytes += static_cast<char>(size & 127 | 128);
      }
      bytes += entry;
    }
    return bytes;
  }

  std::vector<Request> requests_;
  std::vector<std::string> answers_;
  std::shared_ptr<tensorflow::SavedModelBundle> bundle_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5 || argc % 3 != 2) {
    std::cerr << "usage: loader ROUNDS (MODEL REQUESTS ANSWERS)..." << std::endl;
    return 2;
  }
  std::vector<std::unique_ptr<Model>> models;
  for (int i = 2; i < argc; i += 3) {
    models.push_back(std::make_unique<Model>(argv[i], argv[i + 1]));
  }
  for (int round = 0; round < std::atoi(argv[1]); ++round) {
    for (size_t m = 0; m < models.size(); ++m) {
      for (size_t r = 0; r < models[m]->size(); ++r) {
        std::printf("%zu %zu %.9f\n", m, r, models[m]->Run(r));
      }
    }
  }
  for (size_t m = 0; m < models.size(); ++m) {
    models[m]->WriteAnswers(argv[4 + 3 * m]);
  }
  return 0;
}
