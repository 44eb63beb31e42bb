// pkt-line framing (gitprotocol-common(5)) over KJ streams.
//
// PktReader reads packets from a stream with a buffer of its own; what follows the packets (a
// pack) is read through the same buffer. PktWriter collects packets and writes them in large
// pieces; with side-band it wraps data in bands 1 to 3.
// Errors: a malformed length or a stream that ends inside a packet rejects with a sentence.
// Loop: one reader or writer belongs to one task. Both borrow their stream.
#pragma once

#include <kj/array.h>
#include <kj/async-io.h>

#include <string>
#include <string_view>

namespace packmoor::gitlayer {

constexpr size_t kPktBytesMax = 65520;             // with the 4 length digits
constexpr size_t kPktPayloadMax = kPktBytesMax - 4;
constexpr size_t kPktLengthDigits = 4;

enum class PktKind : uint8_t { kData, kFlush, kDelimiter, kResponseEnd, kEnd };

struct Pkt {
  PktKind kind = PktKind::kEnd;
  std::string_view data;      // without the length; valid until the next read

  std::string_view line() const;  // without one trailing newline
};

// What the four length digits of a packet say.
struct PktLength {
  bool valid = false;
  PktKind kind = PktKind::kEnd;
  size_t payloadBytes = 0;
};
PktLength parsePktLength(std::string_view fourDigits);

class PackEnd;

class PktReader {
 public:
  explicit PktReader(kj::AsyncInputStream& in);
  ~PktReader() noexcept(false);
  KJ_DISALLOW_COPY(PktReader);
  // kEnd: the stream ended between packets.
  kj::Promise<Pkt> read();
  // The next packet when all of it lies in the buffer; spares a promise per packet.
  kj::Maybe<Pkt> readBuffered();
  // True when a whole packet lies in the buffer, so that read() completes at once.
  bool buffered() const;
  // Raw bytes behind the packets read so far: first the buffer, then the stream. 0 at the end.
  kj::Promise<size_t> readRaw(kj::ArrayPtr<kj::byte> into);
  // The raw bytes are a pack, and end with it; the stream may go on behind it. Before the first readRaw().
  void endRawWithPack();
  uint64_t bytesRead() const { return bytesRead_; }
  // Whether the stream, or the pack that endRawWithPack() told of, has been read to its end.
  bool ended() const { return ended_ || packEnded(); }

 private:
  kj::Promise<bool> need(size_t bytes);  // false: the stream ended before
  void makeRoom(size_t bytes);
  Pkt take(PktLength length);
  bool packEnded() const;
  size_t cutAtPackEnd(kj::ArrayPtr<const kj::byte> got);
  kj::AsyncInputStream& in_;
  kj::Own<PackEnd> packEnd_;   // null: the raw bytes end with the stream
  kj::Array<kj::byte> buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t bytesRead_ = 0;
  bool ended_ = false;
};

class PktWriter {
 public:
  explicit PktWriter(kj::AsyncOutputStream& out);
  KJ_DISALLOW_COPY(PktWriter);
  void data(std::string_view payload);             // < kPktPayloadMax
  void line(std::string_view payload);             // adds a newline
  void flush();
  void delimiter();
  void responseEnd();
  void raw(kj::ArrayPtr<const kj::byte> bytes);    // as it is (a pack without side-band)
  // From now on data and lines go out on band 1 (protocol 2's sideband-all), or as they are.
  void allOnBand1(bool all) { bandsAll_ = all; }
  bool bandsAll() const { return bandsAll_; }
  // Side-band: any length, split into packets whose payload with its band is at most `packetMax`.
  void band(int number, std::string_view payload, size_t packetMax = kPktPayloadMax);
  size_t pending() const;                          // bytes not yet written
  // Writes what is pending. Call when pending() passes a bound, and at the end.
  // One send at a time; packets may be added meanwhile.
  kj::Promise<void> send();

 private:
  void length(size_t payloadBytes);

  kj::AsyncOutputStream& out_;
  std::string pending_;
  std::string sending_;
  uint64_t bytesWritten_ = 0;
  bool bandsAll_ = false;

 public:
  uint64_t bytesWritten() const { return bytesWritten_; }
};

// Appends the four digits before a payload (side-band and lists of refs make packets in buffers).
void appendPktLength(std::string& to, size_t payloadBytes);
// Appends one data packet to a buffer (side-band carries pkt-lines inside its packets).
void appendPkt(std::string& to, std::string_view payload);
void appendFlush(std::string& to);

}  // namespace packmoor::gitlayer
