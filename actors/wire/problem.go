package wire

// Problem is an error of the HTTP API (https://www.rfc-editor.org/rfc/rfc9457). Its type is always about:blank, so its
// title is that of the status.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code,omitempty"` // of a request for files: what kind of failure it is
	Pod    string `json:"pod,omitempty"`  // that did not answer
}
