// A blocking HTTP/1.1 client over one kept-alive loopback connection, for load generation.
//
// Why: the same generator must drive Packmoor and the git server that it is compared with, at
// little cost of its own, so that the servers' work is what is measured. It speaks just what
// both answer with: Content-Length and chunked bodies. Threads: one client per thread.
// Errors are std::runtime_error with a sentence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace packmoor::bench {

struct Url {
  std::string host;   // a loopback address
  std::string port;
  std::string path;   // begins with '/'
};
// "http://127.0.0.1:8080/path"; anything but a loopback address is refused.
Url parseUrl(const std::string& text);

struct HttpAnswer {
  int status = 0;
  std::string body;      // with keepBody; else its last bytes
  uint64_t bytes = 0;    // of the body
};

class HttpClient {
 public:
  explicit HttpClient(const Url& url);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Answers may be larger than one wants to keep; what is not kept is counted.
  bool keepBody = true;
  std::string gitProtocol;   // of the header; empty: none

  // Sends the request and reads the whole answer; connects first, or again, where needed.
  HttpAnswer get(const std::string& target);
  HttpAnswer post(const std::string& target, std::string_view contentType,
                  std::string_view body);

 private:
  std::string protocolHeader() const;
  HttpAnswer exchange(const std::string& head, std::string_view body);
  void connectNow();
  void closeNow();
  void sendAll(std::string_view head, std::string_view body);
  bool fill();
  std::string readLine();
  void readBody(size_t bytes, HttpAnswer& answer);

  Url url_;
  int socket_ = -1;
  std::string buffer_;
  size_t begin_ = 0;
};

}  // namespace packmoor::bench
