"""The admin API and its panel: start a benchmark, watch it, judge it and read its leaderboard over HTTP.

| module | |
|---|---|
| `app` | puts everything together; `server` runs it |
| `auth` | who may call: one dependency for every route |
| `web` | what every answer goes through: size limits, security headers, metrics, the audit log |
| `problems` | errors as RFC 9457 problem details |
| `models` | the bodies |
| `service` | the store and the caches behind the routes, called in threads |
| `backends` | what runs a collection: Airflow, or this machine |
| `routes` | one router a theme, short |
"""
