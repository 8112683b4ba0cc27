package sqsqueue

// What tests look at.
var (
	ValidParent = validParent
	FromXRay    = fromXRay
	ToXRay      = toXRay
)

// Protocol is how answers are read.
type Protocol = protocol
