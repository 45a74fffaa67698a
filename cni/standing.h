// Whether a namespace's pods are the mesh's business, as the agent last wrote it down: for when it cannot be asked.
#ifndef AMBIENT_CNI_STANDING_H
#define AMBIENT_CNI_STANDING_H

#include "json.h"

struct setup { // what the configuration says
  const char *run_dir;
  struct text exempt; // names between blanks whose pods never wait, because the mesh needs them to come up
  struct text
      agents; // how kubelet's directory for an agent's pod begins: it has one until that is gone; empty: unknown
};

enum standing {
  STANDING_UNKNOWN, // no file, another version's file, or a namespace it does not name
  STANDING_MESH,    // enrolled, or some of its pods are by a label of their own
  STANDING_OUTSIDE, // certainly none of it
  STANDING_ORPHAN,  // nobody can say any more, because no agent belongs to this node: the mesh left it without a word
  STANDING_REMOVED, // the mesh is being taken off this node: nobody's pods are its business any more
};

enum standing standing_of(const struct setup *setup, struct text namespace);

#endif
