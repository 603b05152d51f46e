-- wrk's figures as one line of JSON; latencies are in microseconds.
done = function(summary, latency)
   local e = summary.errors
   io.write(string.format('\n{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"p999":%d,"lost":%d,"refused":%d,"status":%d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
      e.read + e.write + e.timeout, e.connect, e.status))
end
