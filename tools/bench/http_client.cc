#include "http_client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace packmoor::bench {

namespace {
constexpr int kAnswerSecondsMax = 120;
constexpr size_t kReadBytes = 256u << 10;
constexpr size_t kTailBytes = 64;      // of a body that is not kept

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }
}  // namespace

Url parseUrl(const std::string& text) {
  constexpr std::string_view kScheme = "http://";
  if (text.compare(0, kScheme.size(), kScheme) != 0) fail("not an http:// address: " + text);
  auto slash = text.find('/', kScheme.size());
  if (slash == std::string::npos) fail("no repository in the address: " + text);
  std::string authority = text.substr(kScheme.size(), slash - kScheme.size());
  auto colon = authority.rfind(':');
  Url url{authority.substr(0, colon),
          colon == std::string::npos ? "80" : authority.substr(colon + 1), text.substr(slash)};
  if (url.host != "localhost" && url.host.compare(0, 4, "127.") != 0)
    fail("the load generator talks to loopback addresses only, not to " + url.host);
  return url;
}

HttpClient::HttpClient(const Url& url) : url_(url) {}
HttpClient::~HttpClient() { closeNow(); }

HttpAnswer HttpClient::get(const std::string& target) {
  return exchange("GET " + target + " HTTP/1.1\r\nHost: " + url_.host + ":" + url_.port +
                      "\r\nUser-Agent: git/2.39.5\r\nAccept: */*\r\n" + protocolHeader() + "\r\n",
                  {});
}

HttpAnswer HttpClient::post(const std::string& target, std::string_view contentType,
                            std::string_view body) {
  return exchange("POST " + target + " HTTP/1.1\r\nHost: " + url_.host + ":" + url_.port +
                      "\r\nUser-Agent: git/2.39.5\r\nContent-Type: " + std::string(contentType) +
                      "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + protocolHeader() +
                      "\r\n",
                  body);
}

std::string HttpClient::protocolHeader() const {
  return gitProtocol.empty() ? "" : "Git-Protocol: " + gitProtocol + "\r\n";
}

HttpAnswer HttpClient::exchange(const std::string& head, std::string_view body) {
  if (socket_ < 0) connectNow();
  try {
    sendAll(head, body);
    if (begin_ == buffer_.size() && !fill()) throw std::runtime_error("closed");
  } catch (const std::runtime_error&) {
    // A server may close an idle connection at any time; nothing was answered yet.
    closeNow();
    connectNow();
    sendAll(head, body);
  }

  HttpAnswer answer;
  std::string line = readLine();
  if (line.size() < 12 || line.compare(0, 5, "HTTP/") != 0) fail("not an HTTP answer: " + line);
  answer.status = std::stoi(line.substr(9, 3));
  size_t length = 0;
  bool chunked = false, close = false, haveLength = false;
  while (!(line = readLine()).empty()) {
    auto is = [&](const char* name) { return strncasecmp(line.c_str(), name, strlen(name)) == 0; };
    if (is("content-length:")) {
      length = std::stoull(line.substr(15));
      haveLength = true;
    }
    if (is("transfer-encoding:") && line.find("chunked") != std::string::npos) chunked = true;
    if (is("connection:") && line.find("close") != std::string::npos) close = true;
  }
  if (chunked) {
    for (;;) {
      size_t bytes = std::stoull(readLine(), nullptr, 16);
      readBody(bytes, answer);
      readLine();
      if (bytes == 0) break;
    }
  } else if (haveLength) {
    readBody(length, answer);
  } else {
    do {
      readBody(buffer_.size() - begin_, answer);
    } while (fill());
    close = true;
  }
  if (close) closeNow();
  return answer;
}

void HttpClient::connectNow() {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  int error = getaddrinfo(url_.host.c_str(), url_.port.c_str(), &hints, &found);
  if (error != 0) fail("cannot resolve " + url_.host + ": " + gai_strerror(error));
  socket_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int result = connect(socket_, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (result != 0) fail("cannot connect to port " + url_.port + ": " + std::strerror(errno));
  int on = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  timeval limit{kAnswerSecondsMax, 0};
  setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  buffer_.clear();
  begin_ = 0;
}

void HttpClient::closeNow() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  buffer_.clear();
  begin_ = 0;
}

void HttpClient::sendAll(std::string_view head, std::string_view body) {
  iovec parts[2] = {{const_cast<char*>(head.data()), head.size()},
                    {const_cast<char*>(body.data()), body.size()}};
  size_t left = head.size() + body.size();
  while (left > 0) {
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t sent = sendmsg(socket_, &message, MSG_NOSIGNAL);
    if (sent < 0) fail(std::string("sending failed: ") + std::strerror(errno));
    left -= sent;
    for (auto& part : parts) {
      size_t used = std::min<size_t>(sent, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + used;
      part.iov_len -= used;
      sent -= used;
    }
  }
}

bool HttpClient::fill() {
  if (begin_ > 0) buffer_.erase(0, begin_);
  begin_ = 0;
  const size_t held = buffer_.size();
  buffer_.resize(held + kReadBytes);
  ssize_t got = recv(socket_, buffer_.data() + held, kReadBytes, 0);
  buffer_.resize(held + static_cast<size_t>(got > 0 ? got : 0));
  if (got < 0) fail(std::string("receiving failed: ") + std::strerror(errno));
  return got > 0;
}

std::string HttpClient::readLine() {
  for (;;) {
    auto end = buffer_.find("\r\n", begin_);
    if (end != std::string::npos) {
      std::string line = buffer_.substr(begin_, end - begin_);
      begin_ = end + 2;
      return line;
    }
    if (!fill()) fail("the server closed the connection inside an answer");
  }
}

void HttpClient::readBody(size_t bytes, HttpAnswer& answer) {
  answer.bytes += bytes;
  for (;;) {
    const size_t part = std::min(bytes, buffer_.size() - begin_);
    if (keepBody) {
      answer.body.append(buffer_, begin_, part);
    } else if (part > 0) {
      const size_t tail = std::min(part, kTailBytes);
      answer.body.append(buffer_, begin_ + part - tail, tail);
      if (answer.body.size() > kTailBytes) answer.body.erase(0, answer.body.size() - kTailBytes);
    }
    begin_ += part;
    bytes -= part;
    if (bytes == 0) return;
    if (!fill()) fail("the server closed the connection inside an answer");
  }
}

}  // namespace packmoor::bench
