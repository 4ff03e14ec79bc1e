from dataclasses import dataclass
class AssignEntities: pass
