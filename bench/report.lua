-- wrk's figures as one line of JSON; times are in microseconds.
done = function(summary, latency)
   io.write(string.format('\n{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"p999":%d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
