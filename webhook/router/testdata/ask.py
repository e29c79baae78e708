"""Asks for the answers of each line of stdin, {"name", "method", "path", "times", "at": {WAY: HOST:PORT}, "key": {WAY: KEY}}, on one
connection a way, and prints what Python's own client reads: {"name", "got": {WAY: TEXT}}."""
import concurrent.futures, http.client, json, sys
http.client._MAXHEADERS = 1000
http.client._MAXLINE = 1 << 20


def ask(case, way):
    headers = {"x-sandbox-key": case["key"][way]} if case["key"].get(way) else {}
    conn = http.client.HTTPConnection(case["at"][way], timeout=1.5 if way == "direct" else 8)
    out = []
    try:
        for _ in range(case["times"]):
            conn.request(case["method"], case["path"], headers=headers)
            r = conn.getresponse()
            out.append("%d %r" % (r.status, r.read()))
        return "ok " + " then ".join(out)
    except Exception as e:
        return "failed: " + " then ".join(out + [repr(e)])
    finally:
        conn.close()


def all_ways(case):
    return {"name": case["name"], "got": {way: ask(case, way) for way in case["at"]}}


cases = [json.loads(line) for line in sys.stdin]
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    for result in pool.map(all_ways, cases):
        print(json.dumps(result))
