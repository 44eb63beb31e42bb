// pkt-line framing (gitprotocol-common(5)) over KJ streams.
//
// PktReader reads packets from a stream with a buffer of its own; what follows the packets (a
// pack) is read through the same buffer. PktWriter collects packets and writes them in large
// pieces; with side-band it wraps data in bands 1 to 3.
// Errors: a malformed length or a stream that ends inside a packet rejects with a sentence.
// Loop: one reader or writer belongs to one task.
#pragma once

#include <kj/async-io.h>

#include <string>
#include <string_view>

namespace packmoor::gitlayer {

constexpr size_t kPktBytesMax = 65520;             // with the 4 length digits
constexpr size_t kPktPayloadMax = kPktBytesMax - 4;

enum class PktKind : uint8_t { kData, kFlush, kDelimiter, kResponseEnd, kEnd };

struct Pkt {
  PktKind kind = PktKind::kEnd;
  std::string_view data;      // without the length; valid until the next read

  std::string_view line() const;  // without one trailing newline
};

class PktReader {
 public:
  explicit PktReader(kj::AsyncInputStream& in);
  // kEnd: the stream ended between packets.
  kj::Promise<Pkt> read();
  // True when a whole packet lies in the buffer, so that read() completes at once.
  bool buffered() const;
  // Raw bytes behind the packets read so far: first the buffer, then the stream. 0 at the end.
  kj::Promise<size_t> readRaw(kj::ArrayPtr<kj::byte> into);
  uint64_t bytesRead() const { return bytesRead_; }

 private:
  kj::Promise<bool> need(size_t bytes);  // false: the stream ended before
  kj::AsyncInputStream& in_;
  kj::Array<kj::byte> buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t bytesRead_ = 0;
  bool ended_ = false;
};

class PktWriter {
 public:
  explicit PktWriter(kj::AsyncOutputStream& out);
  void data(std::string_view payload);             // <= kPktPayloadMax
  void line(std::string_view payload);             // adds a newline
  void flush();
  void delimiter();
  void responseEnd();
  void raw(kj::ArrayPtr<const kj::byte> bytes);    // as it is (a pack without side-band)
  // Side-band: any length, split into packets of at most `packetMax`.
  void band(int number, std::string_view payload, size_t packetMax = kPktPayloadMax);
  size_t pending() const;                          // bytes not yet written
  // Writes what is pending. Call when pending() passes a bound, and at the end.
  kj::Promise<void> send();

 private:
  kj::AsyncOutputStream& out_;
  std::string pending_;
  std::string sending_;
  uint64_t bytesWritten_ = 0;

 public:
  uint64_t bytesWritten() const { return bytesWritten_; }
};

}  // namespace packmoor::gitlayer
