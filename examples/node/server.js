// A program as many are: it does nothing about signals, readiness or metrics.
const http = require("http");

http.createServer((request, response) => {
  response.setHeader("Content-Type", "text/plain");
  response.end(request.url === "/health" ? "ok\n" : "Hello from Node\n");
}).listen(process.env.PORT || 8000);
