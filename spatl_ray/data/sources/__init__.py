"""The built-in data sets, a file a family; `spatl_ray.data.datasets` names them."""
