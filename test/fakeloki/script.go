package fakeloki

import (
	"net/http"
	"slices"
	"sync/atomic"
)

// Script responds to pushes in place of the rules of Loki. Calls may be concurrent, and a Script
// may block. If it sets Streams to nil, the server stores no entries and keeps none in Pushes.
type Script func(*Push) Response

// Push is one request that pushes entries.
type Push struct {
	Request *http.Request // its body has been read
	Streams []Stream
	Status  int // of the response; 0: none yet, or the connection was closed
}

// Stream is a stream of a push.
type Stream struct {
	Labels  string  // as a selector
	Entries []Entry // without Labels
}

// Entries returns the entries of all streams.
func (p *Push) Entries() (all []Entry) {
	for _, s := range p.Streams {
		all = append(all, s.Entries...)
	}
	return all
}

// Response to a push.
type Response struct {
	Status int // 200 or 204 stores all entries; 0 closes the connection
	Header http.Header
	Body   string
}

// Respond returns a Script that responds to every push in the same way.
func Respond(status int, body string) Script {
	return func(*Push) Response { return Response{Status: status, Body: body} }
}

// Hang is a Script that responds to no push: it waits until the client or the test ends.
func (s *Server) Hang(p *Push) Response {
	select {
	case <-p.Request.Context().Done():
	case <-s.ctx.Done():
	}
	return Response{}
}

// Times returns a Script that responds to the first n pushes like script and accepts the others.
func Times(n int, script Script) Script {
	var calls atomic.Int64
	return func(p *Push) Response {
		if calls.Add(1) <= int64(n) {
			return script(p)
		}
		return Response{Status: http.StatusNoContent}
	}
}

// ScriptPushes lets script respond to all pushes from now on. Entries that it accepts are stored as
// they are: limits do not apply, and duplicates are kept. A nil script ends that.
func (s *Server) ScriptPushes(script Script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

// Pushes returns the pushes that were received since the start or the last Clear, in the order of
// their arrival.
func (s *Server) Pushes() []Push {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Push, len(s.pushes))
	for i, p := range s.pushes {
		all[i] = *p
	}
	return all
}

// Requests returns all requests that were received since the start or the last Clear, pushes and
// those that were intercepted included.
func (s *Server) Requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Flush ends the chunks of all streams. Loki compares the end of a chunk in milliseconds: a query
// whose range starts within the last millisecond of a chunk, or later, does not find its entries.
func (s *Server) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tenants {
		for _, st := range t.streams {
			st.flushed = len(st.entries)
			for _, e := range st.entries {
				if e.Time.After(st.chunkEnd) {
					st.chunkEnd = e.Time
				}
			}
		}
	}
}

// runScript responds to a push with the script.
func (s *Server) runScript(w http.ResponseWriter, script Script, p *Push) {
	response := script(p)
	s.mu.Lock()
	p.Status = response.Status
	if response.Status == http.StatusOK || response.Status == http.StatusNoContent {
		_, t := s.tenantOf(p.Request)
		for _, pushed := range p.Streams {
			labels, err := parseLabels(pushed.Labels)
			if err != nil {
				response = Response{Status: http.StatusBadRequest, Body: err.Error()}
				break
			}
			st := t.stream(labels, &s.options.Limits)
			for _, e := range pushed.Entries {
				e.Labels = labels
				st.entries = append(st.entries, e)
			}
		}
		s.notify()
	}
	s.mu.Unlock()
	if response.Status == 0 {
		panic(http.ErrAbortHandler) // closes the connection
	}
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.Status)
	_, _ = w.Write([]byte(response.Body))
}
