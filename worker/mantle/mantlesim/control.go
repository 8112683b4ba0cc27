package mantlesim

import (
	"encoding/json"
	"io"
	"net/http"

	"upwell/worker/mantle/mantlesim/capacity"
)

// control answers below /_sim/.
func (s *Server) control(w http.ResponseWriter, r *http.Request, cmd string) {
	var err error
	switch r.Method + " " + cmd {
	case "GET ledger":
		w.Header().Set("Content-Type", "application/jsonl")
		lines := json.NewEncoder(w)
		for _, e := range s.Ledger() {
			if lines.Encode(e) != nil {
				return // the client has gone
			}
		}
		return
	case "GET counts":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Counts())
		return
	case "POST capacity":
		var text []byte
		var script capacity.Script
		if text, err = io.ReadAll(r.Body); err == nil {
			script, err = capacity.ParseScript(string(text))
		}
		if err == nil {
			err = s.SetCapacity(script)
		}
	case "POST faults":
		var list []Fault
		if err = json.NewDecoder(r.Body).Decode(&list); err == nil {
			err = s.SetFaults(list)
		}
	case "POST keys":
		var keys []string
		if err = json.NewDecoder(r.Body).Decode(&keys); err == nil {
			s.SetKeys(keys)
		}
	case "POST reset":
		s.Reset()
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
