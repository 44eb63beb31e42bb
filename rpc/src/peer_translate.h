// The messages of replicator/peer.h as Cap'n Proto, both ways.
//
// write() fills a builder; read() makes the value and throws a KJ exception, saying what is wrong,
// when the bytes cannot be one: an unknown enumerator, an extent list that is not whole ids, a
// record whose hash is not that of its fields. Payloads are copied once on each side: the
// message is freed as a whole as soon as it was sent or read.
#pragma once

#include "rpc/peer.capnp.h"

#include <replicator/peer.h>

namespace packmoor::rpc {

// What one message may hold. Larger than anything that the replicator sends: a record's payload
// is at most 8 MiB, an append or fetch 1 MiB or one record.
constexpr size_t kPeerMessageBytesMax = 32u << 20;

void write(const replicator::Uuid& id, wire::Uuid::Builder out);
replicator::Uuid read(wire::Uuid::Reader in);
void write(const replicator::Hash128& hash, wire::Hash::Builder out);
replicator::Hash128 read(wire::Hash::Reader in);
void write(const replicator::LogPosition& position, wire::Position::Builder out);
replicator::LogPosition read(wire::Position::Reader in);
void write(const replicator::VolumeRecord& record, wire::VolumeRecord::Builder out);
replicator::VolumeRecord read(wire::VolumeRecord::Reader in);

void write(const replicator::AppendRequest& request, wire::AppendRequest::Builder out);
replicator::AppendRequest read(wire::AppendRequest::Reader in);
void write(const replicator::AppendReply& reply, wire::AppendReply::Builder out);
replicator::AppendReply read(wire::AppendReply::Reader in);

void write(const replicator::FenceReply& reply, wire::FenceReply::Builder out);
replicator::FenceReply read(wire::FenceReply::Reader in);

void write(const replicator::FetchReply& reply, wire::FetchReply::Builder out);
replicator::FetchReply read(wire::FetchReply::Reader in);

void write(const replicator::ProposeRequest& request, wire::ProposeRequest::Builder out);
replicator::ProposeRequest read(wire::ProposeRequest::Reader in);
void write(const replicator::ProposeReply& reply, wire::ProposeReply::Builder out);
replicator::ProposeReply read(wire::ProposeReply::Reader in);

void write(const replicator::ReadIndexRequest& request, wire::ReadIndexRequest::Builder out);
replicator::ReadIndexRequest read(wire::ReadIndexRequest::Reader in);
void write(const replicator::ReadIndexReply& reply, wire::ReadIndexReply::Builder out);
replicator::ReadIndexReply read(wire::ReadIndexReply::Reader in);

void write(const replicator::ConfirmReply& reply, wire::ConfirmReply::Builder out);
replicator::ConfirmReply read(wire::ConfirmReply::Reader in);

void write(const replicator::ConsentRequest& request, wire::ConsentRequest::Builder out);
replicator::ConsentRequest read(wire::ConsentRequest::Reader in);
void write(const replicator::ConsentReply& reply, wire::ConsentReply::Builder out);
replicator::ConsentReply read(wire::ConsentReply::Reader in);

// How much a message needs, so that it is built in one piece.
capnp::MessageSize sizeOf(const replicator::AppendRequest& request);
capnp::MessageSize sizeOf(const replicator::FetchReply& reply);
capnp::MessageSize sizeOfBytes(size_t bytes);  // a message of few fields and this much data

kj::Array<kj::byte> copyBytes(kj::ArrayPtr<const kj::byte> bytes);
inline kj::StringPtr asStringPtr(const std::string& text) { return {text.data(), text.size()}; }
inline std::string asString(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

}  // namespace packmoor::rpc
