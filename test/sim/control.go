package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// control is the API of the benchmark:
//
//	POST /sim/write?events=N[&rate=R]              writes N states, R a second (else all at once)
//	POST /sim/loki?status=503 or ?delay=20ms       the response to pushes; neither: accepted at once
//	GET  /sim/received[?entries=N][&watches=N]     the content of Loki, in JSON; waits for that many
//	                  [&since=TIME]                from when the lags of the initial Events count
//	GET  /sim/requests                             how many requests the API server has had, by method and path
type control struct {
	history *history
	server  *apiServer
	loki    *loki
}

func (c *control) register(mux *http.ServeMux) {
	mux.HandleFunc("POST /sim/write", c.write)
	mux.HandleFunc("POST /sim/loki", c.behave)
	mux.HandleFunc("GET /sim/received", c.received)
}

func (c *control) write(w http.ResponseWriter, r *http.Request) {
	events, err := number(r, "events")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rate, err := number(r, "rate")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.history.write(r.Context(), events, float64(rate))
}

func (c *control) behave(w http.ResponseWriter, r *http.Request) {
	status, err := number(r, "status")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var delay time.Duration
	if s := r.FormValue("delay"); s != "" {
		if delay, err = time.ParseDuration(s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	c.loki.behave(status, delay)
}

func (c *control) received(w http.ResponseWriter, r *http.Request) {
	entries, err := number(r, "entries")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	watches, err := number(r, "watches")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var since time.Time
	if s := r.FormValue("since"); s != "" {
		if since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	if err := c.server.waitForWatches(r.Context(), watches); err != nil {
		return // the client has disconnected
	}
	received, err := c.loki.wait(r.Context(), entries)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c.loki.withLags(received, since))
}

// wait waits for entries and returns all pushes.
func (l *loki) wait(ctx context.Context, entries int) (received, error) {
	for {
		r, changed := l.now()
		if r.Entries >= entries {
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// number returns a number of a request, 0 if it is absent.
func number(r *http.Request, name string) (int, error) {
	s := r.FormValue(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%q: want a number", name, s)
	}
	return n, nil
}
