#include "gitlayer/pkt_line.h"

#include "pack_end.h"

#include <kernelio/check.h>
#include <kernelio/co.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kFirstBufferBytes = 16u << 10;  // grows to kPktBytesMax when a packet needs it

int hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void appendLength(std::string& to, size_t packetBytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const char digits[kPktLengthDigits] = {
      kDigits[(packetBytes >> 12) & 15], kDigits[(packetBytes >> 8) & 15],
      kDigits[(packetBytes >> 4) & 15], kDigits[packetBytes & 15]};
  to.append(digits, kPktLengthDigits);
}

[[noreturn]] void failProtocol(kj::String sentence) {
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(sentence)));
}

kj::String printable(std::string_view digits) {
  kj::Vector<char> shown;
  for (char c : digits) shown.add(c >= 0x20 && c < 0x7f ? c : '?');
  shown.add('\0');
  return kj::String(shown.releaseAsArray());
}

}  // namespace

std::string_view Pkt::line() const {
  return !data.empty() && data.back() == '\n' ? data.substr(0, data.size() - 1) : data;
}

PktLength parsePktLength(std::string_view fourDigits) {
  PktLength result;
  if (fourDigits.size() != kPktLengthDigits) return result;
  size_t length = 0;
  for (char c : fourDigits) {
    int digit = hexDigit(c);
    if (digit < 0) return result;
    length = length << 4 | static_cast<size_t>(digit);
  }
  if (length > kPktBytesMax || length == 3) return result;
  result.valid = true;
  if (length >= kPktLengthDigits) {
    result.kind = PktKind::kData;
    result.payloadBytes = length - kPktLengthDigits;
  } else {
    result.kind = length == 0   ? PktKind::kFlush
                  : length == 1 ? PktKind::kDelimiter
                                : PktKind::kResponseEnd;
  }
  return result;
}

PktReader::~PktReader() noexcept(false) {}

PktReader::PktReader(kj::AsyncInputStream& in)
    : in_(in), buffer_(kj::heapArray<kj::byte>(kFirstBufferBytes)) {}

void PktReader::makeRoom(size_t bytes) {
  PACKMOOR_CHECK(bytes <= kPktBytesMax, "a pkt-line's need", bytes);
  if (buffer_.size() - begin_ >= bytes) return;
  size_t held = end_ - begin_;
  if (buffer_.size() >= bytes) {
    memmove(buffer_.begin(), buffer_.begin() + begin_, held);
  } else {
    auto larger = kj::heapArray<kj::byte>(kPktBytesMax);
    memcpy(larger.begin(), buffer_.begin() + begin_, held);
    buffer_ = kj::mv(larger);
  }
  begin_ = 0;
  end_ = held;
}

kj::Promise<bool> PktReader::need(size_t bytes) {
  struct Body {
    static Co<bool> run(PktReader& self, size_t bytes) {
      self.makeRoom(bytes);
      while (self.end_ - self.begin_ < bytes) {
        if (self.ended_) co_return false;
        size_t got = co_await self.in_.tryRead(self.buffer_.begin() + self.end_, 1,
                                               self.buffer_.size() - self.end_);
        if (got == 0) self.ended_ = true;
        self.end_ += got;
        self.bytesRead_ += got;
      }
      co_return true;
    }
  };
  if (end_ - begin_ >= bytes) return true;
  return Body::run(*this, bytes);
}

Pkt PktReader::take(PktLength length) {
  Pkt pkt;
  pkt.kind = length.kind;
  begin_ += kPktLengthDigits;
  pkt.data = std::string_view(reinterpret_cast<const char*>(buffer_.begin() + begin_),
                              length.payloadBytes);
  begin_ += length.payloadBytes;
  return pkt;
}

bool PktReader::buffered() const {
  if (end_ - begin_ < kPktLengthDigits) return false;
  auto length = parsePktLength(
      std::string_view(reinterpret_cast<const char*>(buffer_.begin() + begin_), kPktLengthDigits));
  return length.valid && end_ - begin_ >= kPktLengthDigits + length.payloadBytes;
}

kj::Maybe<Pkt> PktReader::readBuffered() {
  if (!buffered()) return nullptr;
  return take(parsePktLength(
      std::string_view(reinterpret_cast<const char*>(buffer_.begin() + begin_), kPktLengthDigits)));
}

kj::Promise<Pkt> PktReader::read() {
  struct Body {
    static Co<Pkt> run(PktReader& self) {
      bool haveLength = co_await self.need(kPktLengthDigits);
      if (!haveLength) {
        if (self.end_ != self.begin_) {
          failProtocol(kj::str("the stream ended inside a packet's length"));
        }
        co_return Pkt();
      }
      std::string_view digits(reinterpret_cast<const char*>(self.buffer_.begin() + self.begin_),
                              kPktLengthDigits);
      PktLength length = parsePktLength(digits);
      if (!length.valid) {
        failProtocol(kj::str("bad packet length \"", printable(digits), "\""));
      }
      bool whole = co_await self.need(kPktLengthDigits + length.payloadBytes);
      if (!whole) failProtocol(kj::str("the stream ended inside a packet"));
      co_return self.take(length);
    }
  };
  KJ_IF_MAYBE(pkt, readBuffered()) { return *pkt; }
  return Body::run(*this);
}

kj::Promise<size_t> PktReader::readRaw(kj::ArrayPtr<kj::byte> into) {
  if (into.size() == 0 || packEnded()) return size_t(0);
  size_t held = kj::min(end_ - begin_, into.size());
  if (held > 0) {
    memcpy(into.begin(), buffer_.begin() + begin_, held);
    held = cutAtPackEnd(into.slice(0, held));
    begin_ += held;
    return held;
  }
  if (ended_) return size_t(0);
  return in_.tryRead(into.begin(), 1, into.size()).then([this, into](size_t got) {
    if (got == 0) ended_ = true;
    bytesRead_ += got;
    return cutAtPackEnd(into.slice(0, got));
  });
}

void PktReader::endRawWithPack() { packEnd_ = kj::heap<PackEnd>(); }

size_t PktReader::cutAtPackEnd(kj::ArrayPtr<const kj::byte> got) {
  if (packEnd_.get() == nullptr) return got.size();
  return packEnd_->take(got);
}

bool PktReader::packEnded() const { return packEnd_.get() != nullptr && packEnd_->ended(); }

PktWriter::PktWriter(kj::AsyncOutputStream& out) : out_(out) {}

void PktWriter::length(size_t payloadBytes) {
  appendPktLength(pending_, payloadBytes);
}

void PktWriter::data(std::string_view payload) {
  length(payload.size() + (bandsAll_ ? 1 : 0));
  if (bandsAll_) pending_.push_back('\1');
  pending_.append(payload);
}

void PktWriter::line(std::string_view payload) {
  length(payload.size() + (bandsAll_ ? 2 : 1));
  if (bandsAll_) pending_.push_back('\1');
  pending_.append(payload);
  pending_.push_back('\n');
}

void PktWriter::flush() { pending_.append("0000"); }
void PktWriter::delimiter() { pending_.append("0001"); }
void PktWriter::responseEnd() { pending_.append("0002"); }

void PktWriter::raw(kj::ArrayPtr<const kj::byte> bytes) {
  pending_.append(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
}

void PktWriter::band(int number, std::string_view payload, size_t packetMax) {
  PACKMOOR_CHECK(number >= 1 && number <= 3, "side-band number", number);
  PACKMOOR_CHECK(packetMax > 1, "side-band packet size", packetMax);
  size_t pieceMax = kj::min(packetMax, kPktPayloadMax) - 1;
  while (!payload.empty()) {
    std::string_view piece = payload.substr(0, pieceMax);
    payload.remove_prefix(piece.size());
    length(piece.size() + 1);
    pending_.push_back(static_cast<char>(number));
    pending_.append(piece);
  }
}

size_t PktWriter::pending() const { return pending_.size(); }

kj::Promise<void> PktWriter::send() {
  if (pending_.empty()) return kj::READY_NOW;
  std::swap(pending_, sending_);
  pending_.clear();
  bytesWritten_ += sending_.size();
  return out_.write(sending_.data(), sending_.size());
}

void appendPktLength(std::string& to, size_t payloadBytes) {
  PACKMOOR_CHECK(payloadBytes <= kPktPayloadMax, "a packet's payload", payloadBytes);
  appendLength(to, payloadBytes + kPktLengthDigits);
}

void appendPkt(std::string& to, std::string_view payload) {
  appendPktLength(to, payload.size());
  to.append(payload);
}

void appendFlush(std::string& to) { to.append("0000"); }

}  // namespace packmoor::gitlayer
