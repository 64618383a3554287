"""Looking at record sets: contact sheets, checks of every record, anchors that fit."""
