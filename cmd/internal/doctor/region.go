package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"upwell/worker/mantle"
)

var regionName = regexp.MustCompile(`^[a-z]{2,8}(-[a-z0-9]+)+-[0-9]+$`)

// regions compares the Regions that settings, keys and services name.
func (x *exam) regions() {
	here := x.cfg.AWS.Region
	calls := slices.DeleteFunc(slices.Clone(x.callRegions()), func(r string) bool { return r == "" })
	base := regionOf(x.cfg.Mantle.BaseURL)
	key, short := readShortTerm(strings.TrimSpace(cmp.Or(x.cfg.Mantle.APIKey, x.cfg.Mantle.BearerToken)))
	short = short && x.way() == mantle.APIKey
	var wrong, fixes []string
	object := func(fix, format string, args ...any) {
		wrong, fixes = append(wrong, fmt.Sprintf(format, args...)), append(fixes, fix)
	}
	if here == "" && x.cfg.AWSErr == nil && (x.cfg.Queue != "" || x.cfg.Bucket != "") {
		object("set AWS_REGION, or region in the profile", "no Region for queue and bucket")
	}
	for _, r := range calls {
		if base != "" && r != base {
			object("--region "+base+", or another base URL", "calls are for %s, and the base URL is in %s", r, base)
		}
		if short && r != key.region {
			object("make a key in "+r+", or call "+key.region+" with --region; --auth short-term makes one for each Region",
				"the short-term key is good in %s only, and calls go to %s", key.region, r)
		}
	}
	if x.queueRegion != "" && here != "" && x.queueRegion != here {
		object("AWS_REGION="+x.queueRegion, "the queue is in %s, and AWS_REGION is %s", x.queueRegion, here)
	}
	if x.bucketHome != "" && here != "" && x.bucketHome != here {
		object("AWS_REGION="+x.bucketHome+", with the queue in that Region too", "the bucket is in %s, and AWS_REGION is %s", x.bucketHome, here)
	}
	if len(wrong) > 0 {
		x.note(checkRegion, Failure, strings.Join(wrong, "; "), strings.Join(fixes, "\n"))
		return
	}
	var parts []string
	if len(calls) > 0 {
		parts = append(parts, "calls go to "+strings.Join(calls, ", "))
	}
	if here != "" && (x.cfg.Queue != "" || x.cfg.Bucket != "") {
		parts = append(parts, "queue and bucket are looked for in "+here)
	}
	if len(parts) == 0 {
		x.skip("no Region is named, and none is needed", checkRegion)
		return
	}
	x.ok(checkRegion, "%s", strings.Join(parts, "; "))
}
