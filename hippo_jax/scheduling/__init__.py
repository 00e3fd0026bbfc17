"""How draft and target take turns: on one device, in one program over many, and on two meshes."""
